//! Budgets: what a shim may cost, in things that are the same on every machine.
//!
//! Size, memory, threads, descriptors, processes made, system calls; never time. A found value over
//! its limit fails the run ([`limits`] has them all, `docs/budgets.md` tells how they came about).
//! All is measured in one lane, through `shim-client` playing containerd:
//!
//! ```text
//! outside (run) ── a lane ── stage ─┬─ memory: an idle shim, then ten more containers in it
//!                                   ├─ processes: the last pid before and after each call
//!                                   └─ calls: strace on the shim and its stem
//! ```
//!
//! Allocations are not among them: counting them takes another allocator inside the shim, and that
//! would be another shim than the one that users run.

pub(crate) mod binary;
mod calls;
pub mod limits;
mod memory;
mod processes;
pub mod run;
mod strace;
mod subject;
mod tally;
