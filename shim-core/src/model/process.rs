//! Small nouns around processes and backends.

use std::{fmt, num::NonZeroU32};

use crate::error::{Error, Result};

/// A process id as the shim's pid namespace numbers it. Never 0: a state says "not started".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pid(NonZeroU32);

impl Pid {
    /// Takes a pid from the kernel.
    ///
    /// # Errors
    /// `Other` for 0 and negative numbers, which are not processes.
    pub fn new(pid: i32) -> Result<Self> {
        u32::try_from(pid)
            .ok()
            .and_then(NonZeroU32::new)
            .map(Self)
            .ok_or_else(|| Error::other(format!("{pid} is not a process id")))
    }

    /// The number on the wire.
    pub fn get(self) -> u32 {
        self.0.get()
    }

    /// The number as system calls take it.
    pub fn raw(self) -> i32 {
        i32::try_from(self.0.get()).expect("made from an i32")
    }
}

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A terminal's size in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WindowSize {
    /// Rows.
    pub height: u16,
    /// Columns.
    pub width: u16,
}

/// Options of a runtime: a message that only the backend understands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeOptions {
    /// The message's name, `containerd.runc.v1.Options` for one.
    pub type_url: String,
    /// The encoded message.
    pub value: Vec<u8>,
}

/// Who a backend is: for `-v`, `-info` and the logs.
#[derive(Clone, Debug)]
pub struct About {
    /// The runtime's name as users write it, `io.containerd.native.v2` for one.
    pub name: &'static str,
    /// The version of the backend.
    pub version: &'static str,
    /// The OCI runtime features document (runtime-spec `features.md`), as JSON.
    pub features: Option<String>,
}
