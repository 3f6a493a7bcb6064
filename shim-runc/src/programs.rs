//! Programs of the host that are run from here: other runtimes, CRIU.

use std::{
    env,
    ffi::{CString, OsStr, OsString},
    mem,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::PathBuf,
};

use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::{AccessFlags, access},
};
use shim_core::{
    Error, Result,
    linux::find_program,
    model::{ExitStatus, Pid},
};

/// Finds a program by an absolute path, or by a name to look up in `PATH`.
///
/// # Errors
/// When it is none that can be run.
pub(crate) fn find(name: &str) -> Result<PathBuf> {
    if !name.contains('/') {
        let path = env::var("PATH").unwrap_or_default();
        let found = find_program(name, &path).map(PathBuf::from);
        return found.ok_or_else(|| Error::other("no such executable file in PATH"));
    }
    let path = PathBuf::from(name);
    if !path.is_absolute() {
        return Err(Error::other("it is neither a name nor an absolute path"));
    }
    if !path.metadata()?.is_file() {
        return Err(Error::other("it is no file"));
    }
    access(&path, AccessFlags::X_OK)?;
    Ok(path)
}

/// What the shim was started with, but for what runtimes pass on to containers of systemd's.
pub(crate) fn environment() -> Vec<CString> {
    let pairs = env::vars_os().filter(|(name, _)| name != "NOTIFY_SOCKET");
    let pair = |(mut name, value): (OsString, OsString)| {
        name.push("=");
        name.push(value);
        CString::new(name.into_vec()).ok()
    };
    pairs.filter_map(pair).collect()
}

/// A text as a program gets it.
///
/// # Errors
/// `InvalidArgument` when a NUL is in it.
pub(crate) fn c_string(text: &OsStr) -> Result<CString> {
    CString::new(text.as_bytes()).map_err(|_| Error::invalid(format!("{text:?} has a NUL")))
}

/// How a program has ended, in words.
pub(crate) fn ending(status: ExitStatus) -> String {
    match status {
        ExitStatus::Code(code) => format!("exit status {code}"),
        ExitStatus::Signal(signal) => format!("killed by signal {}", signal.number()),
        ExitStatus::Unknown => "its end was lost".to_owned(),
    }
}

/// Ends a program that nobody waits for any more, with what it has started itself.
#[derive(Debug)]
pub(crate) struct Unwanted(Pid);

impl Unwanted {
    pub(crate) fn new(pid: Pid) -> Self {
        Self(pid)
    }

    pub(crate) fn pid(&self) -> Pid {
        self.0
    }

    /// From here on the number may be another process's.
    pub(crate) fn has_ended(self) {
        mem::forget(self);
    }
}

impl Drop for Unwanted {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.0.raw());
        // It has no group of its own before it runs.
        let _ = killpg(pid, Signal::SIGKILL).or_else(|_| kill(pid, Signal::SIGKILL));
    }
}
