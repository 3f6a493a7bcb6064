//! The cases that every containerd shim must pass, whoever wrote it.
//!
//! Each [`Case`] has the sentence of the contract that it checks, and says whether that is a MUST
//! or a SHOULD. The suite starts the shim exactly as a chosen generation of containerd does, plays
//! containerd's side, and compares what comes back; afterwards nothing may be left of the case: no
//! process, mount, cgroup, socket or file.
//!
//! ```text
//! Suite ─ one Lab a case ─→ Guest: a shim, a container, its streams ─→ the shim under test
//!   └→ Report: table, JSON, JUnit             events server ←──────────────┘
//! ```
//!
//! It knows the wire and containerd's side of it (`shim-client`), and nothing of how a shim is
//! made: ours and containerd's own are judged alike.

#![forbid(unsafe_code)]

mod case;
mod cases;
mod expect;
mod isolation;
mod lab;
mod model;
mod report;
mod suite;
mod wire;

pub use self::case::{Case, Level};
pub use self::isolation::isolate;
pub use self::report::{Finished, Format, Outcome, Report};
pub use self::suite::{Subject, Suite};

/// Every case there is, in the order in which they run.
#[must_use]
pub fn cases() -> Vec<Case> {
    cases::all()
}
