//! How and when a process ended.

use std::time::SystemTime;

use super::Signal;

/// The end of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// How it ended.
    pub status: ExitStatus,
    /// When we saw it.
    pub at: SystemTime,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// By itself, with a code.
    Code(u8),
    /// By a signal.
    Signal(Signal),
    /// Somebody else collected it.
    Unknown,
}

impl Exit {
    /// An exit seen just now.
    pub fn now(status: ExitStatus) -> Self {
        Self { status, at: SystemTime::now() }
    }
}

impl ExitStatus {
    /// The number on the wire: the code, 128 + the signal, or 255 as containerd has for unknown.
    pub fn wire(self) -> u32 {
        match self {
            Self::Code(code) => u32::from(code),
            Self::Signal(signal) => 128 + u32::from(signal.number()),
            Self::Unknown => 255,
        }
    }
}
