//! A virtual machine with systemd and nothing but cgroup v2, for what the host's kernel cannot show.
//!
//! [`image`] makes its Debian and fetches QEMU and a kernel, once; [`disk`] carries what was just
//! built into it; [`machine`] boots both, without KVM, and [`agent`] runs there what [`wire`] brings.
//! The agent is the same executable as the one on the host.
//!
//! ```text
//! host: machine ── QEMU ── virtio-serial ── agent: systemd's unit ── a program
//!          │                   ▲ wire           │ /bed: disk, read-only
//! ```
//! `cargo xtask guest CMD...` runs a command there; `tests/guest` runs [`lists`] of tests.

pub mod agent;
pub mod built;
pub mod command;
pub mod disk;
pub mod image;
pub mod lists;
pub mod machine;
mod recipe;
mod told;
pub mod wire;

/// Where the guest has the disk with our programs.
pub const BED: &str = "/bed";
