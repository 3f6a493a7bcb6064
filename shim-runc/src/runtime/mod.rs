//! Containers that outlive the process that makes them: what an OCI runtime's command line does.
//!
//! Each verb may be a process of its own. What they know of a container is in its directory:
//!
//! ```text
//! ROOT/ID/config.json   the spec, as it was when the container was made
//!         native.json   what was made, a line each, the first before the first side effect
//!         state.json    which process it is; there when the process is
//!         go, answer    the way to the init process, until the start
//!         output        what its own hooks print
//!         notify        where its program says that it is ready, if somebody wants to hear that
//! ```
//!
//! The directory is the claim to the id, and a lock on it is held by whoever changes the container.
//! Reading, killing and adding a process take no lock: they have to get through when another verb hangs.

mod checkpoint;
mod console;
mod control;
mod create;
mod exec;
mod folder;
mod id;
mod notify;
mod shares;
mod state;

use std::path::{Path, PathBuf};

use oci_spec::runtime::Process as OciProcess;
use shim_core::{Error, Result, Streams, linux::Reaper};

pub use checkpoint::Restore;
pub use console::Console;
pub use control::{MemoryWatch, Whom};
pub use create::{Create, Running};
pub use exec::Exec;
pub use notify::{Readiness, Supervisor};
pub use state::{State, Status};

pub use crate::engine::{
    cgroup::Driver,
    criu::{Allowed, Extra},
    resctrl::{BandwidthLimits, CacheLimits, Occupancy, Shares, Traffic},
};
use crate::{
    engine::{
        criu::Criu,
        launch::Launcher,
        stem::{self, Seed, Stem},
    },
    features,
};

/// An OCI runtime whose containers are below a directory.
#[derive(Clone, Debug)]
pub struct Runtime {
    root: PathBuf,
    files: Files,
    criu: Criu,
}

/// How many files behind the standard streams a program gets. They have to be open, from number 3 on,
/// when this process begins, and to stay so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// Those that it is told of by `LISTEN_FDS`, sd_listen_fds(3).
    pub listening: u32,
    /// Those behind them.
    pub others: u32,
}

impl Files {
    fn count(self) -> u32 {
        self.listening.saturating_add(self.others)
    }

    /// Tells a program of the files that it is to listen on.
    fn announce(self, process: &mut OciProcess) {
        if self.listening > 0 {
            let mut environment = process.env().clone().unwrap_or_default();
            environment.push(format!("LISTEN_FDS={}", self.listening));
            environment.push("LISTEN_PID=1".to_owned());
            process.set_env(Some(environment));
        }
    }
}

/// Becomes the small process that clones containers, if this process was executed to be it, and then
/// does not return. It belongs at the very beginning of `main`.
pub fn run_stem_if_asked() {
    stem::run_if_asked();
}

/// What the engine can do, the features document of the OCI runtime spec, as JSON.
pub fn features() -> String {
    features::document()
}

impl Runtime {
    /// A runtime whose containers are below that directory, which is made when it is needed.
    ///
    /// # Errors
    /// `InvalidArgument` when the path is not absolute, or a file that is to be passed on is not open.
    pub fn new(root: impl Into<PathBuf>, files: Files) -> Result<Self> {
        let root = root.into();
        if !root.is_absolute() {
            return Err(Error::invalid(format!("root {} is not absolute", root.display())));
        }
        let last = 3_u32.saturating_add(files.count());
        if let Some(closed) = (3..last).find(|number| !is_open(*number)) {
            return Err(Error::invalid(format!(
                "file {closed} is to be passed on and is not open"
            )));
        }
        Ok(Self { root, files, criu: Criu::default() })
    }

    /// Has processes saved and restored by the CRIU of that name or absolute path.
    #[must_use]
    pub fn with_criu(self, name: &str) -> Self {
        Self { criu: Criu::of(name), ..self }
    }

    /// A way to make processes. `apart` is a directory without programs.
    fn launcher(&self, apart: &Path, files: Files) -> Result<Launcher> {
        let reaper = Reaper::default();
        let stem = Stem::of(Seed::new(apart, files.count()), reaper.clone())?;
        Ok(Launcher::new(stem, reaper))
    }
}

fn is_open(number: u32) -> bool {
    Path::new("/proc/self/fd").join(number.to_string()).symlink_metadata().is_ok()
}

/// Our own standard streams, for a program.
fn own_streams() -> Result<Streams> {
    use std::os::fd::AsFd;
    let copy = |stream: std::os::fd::BorrowedFd<'_>| stream.try_clone_to_owned();
    Ok(Streams::Pipes {
        stdin: copy(std::io::stdin().as_fd())?,
        stdout: copy(std::io::stdout().as_fd())?,
        stderr: copy(std::io::stderr().as_fd())?,
    })
}
