//! The kernel, as the framework uses it: children, fifos, terminals, mounts.

pub(crate) mod cgroup;
mod exe;
pub(crate) mod limits;
pub(crate) mod mount;
mod reaper;
mod recorded;
mod spawn;
pub(crate) mod stdio;
#[expect(unsafe_code, reason = "raw system calls, one safe function each")]
pub(crate) mod sys;

pub use exe::SealedExecutable;
pub use limits::given_files;
pub use reaper::{Hold, Reaper, open_pid, signal_pidfd, watch, watch_for};
pub use recorded::{kill_recorded, start_time, wait_gone};
pub(crate) use recorded::{record, recorded};
pub use spawn::{Gate, Program, find_program, spawn, spawn_program, spawn_program_apart};
