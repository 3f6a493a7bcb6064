//! Signals by the numbers that the wire has.

use nix::sys::signal::Signal;

/// No signal: asks whether there is a process.
pub(crate) const NONE: u32 = 0;
pub(crate) const INT: u32 = Signal::SIGINT as u32;
pub(crate) const KILL: u32 = Signal::SIGKILL as u32;
pub(crate) const TERM: u32 = Signal::SIGTERM as u32;
pub(crate) const USR1: u32 = Signal::SIGUSR1 as u32;
/// The first signal of the real-time ones that the C library leaves to programs.
pub(crate) const REAL_TIME: u32 = 34;

/// The exit status of a process that a signal ended.
pub(crate) const fn status_of(signal: u32) -> u32 {
    128 + signal
}
