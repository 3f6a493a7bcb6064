//! Runs the hooks of the host's side, and tells all hooks about the container.

use std::{
    fs::File,
    io::{Read, Seek, Write},
    os::fd::{AsFd, OwnedFd},
};

use nix::sys::memfd::{MFdFlags, memfd_create};
use oci_spec::runtime::Spec;
use shim_core::{
    Context, Error, Kind, Result,
    linux::signal_pidfd,
    model::{Bundle, ExitStatus, Pid, Signal},
};

use super::{
    files::Given,
    identity::Identity,
    launch::{Launched, Launcher},
    plan::{Hook, Hooks},
};

/// How much of what a failed hook printed goes into the error.
const PRINTED: u64 = 1024;

/// A container's hooks, and what they are told.
#[derive(Debug)]
pub(crate) struct Hooked {
    pub(crate) hooks: Hooks,
    container: Identity,
}

impl Hooked {
    /// Reads a spec's hooks; `None` when it has none.
    pub(crate) fn of(spec: &Spec, id: &str, bundle: &Bundle) -> Result<Option<Self>> {
        let hooks = Hooks::of(spec)?;
        if hooks == Hooks::default() {
            return Ok(None);
        }
        Ok(Some(Self { hooks, container: Identity::of(spec, id, bundle) }))
    }

    /// The container's state as a file at its beginning.
    pub(crate) fn state(&self, status: &str, pid: Option<Pid>) -> Result<OwnedFd> {
        let file = memory(c"state").context("make the hooks' state")?;
        self.write_state(&file, status, pid)?;
        Ok(file)
    }

    /// Writes the container's state into an empty file, which is at its beginning then.
    pub(crate) fn write_state(&self, file: &OwnedFd, status: &str, pid: Option<Pid>) -> Result<()> {
        let state = self.container.state(status, pid);
        let mut file = File::from(file.try_clone()?);
        file.write_all(&serde_json::to_vec(&state)?)?;
        Ok(file.rewind()?)
    }

    /// Runs hooks one after the other, until one fails.
    ///
    /// # Errors
    /// Which one failed and what it printed.
    pub(crate) async fn run(
        &self,
        launcher: &Launcher,
        hooks: &[Hook],
        status: &str,
        pid: Option<Pid>,
    ) -> Result<()> {
        for hook in hooks {
            let run = self.run_one(launcher, hook, status, pid).await;
            run.with_context(|| format!("hook {}", hook.name()))?;
        }
        Ok(())
    }

    /// Runs hooks whose failures change nothing any more.
    pub(crate) async fn run_all(
        &self,
        launcher: &Launcher,
        hooks: &[Hook],
        status: &str,
        pid: Option<Pid>,
    ) {
        for hook in hooks {
            if let Err(err) = self.run_one(launcher, hook, status, pid).await {
                log::warn!("hook {}: {err:#}", hook.name());
            }
        }
    }

    async fn run_one(
        &self,
        launcher: &Launcher,
        hook: &Hook,
        status: &str,
        pid: Option<Pid>,
    ) -> Result<()> {
        let state = self.state(status, pid)?;
        let output = memory(c"output").context("make a hook's output")?;
        let plan = hook.outside(self.container.bundle())?;
        let streams = Some([state.as_fd(), output.as_fd(), output.as_fd()]);
        let given = Given { streams, ..Given::default() };
        // Boxed: this is called from within a launch.
        let launched = Box::pin(launcher.launch(&plan, &given, None)).await?;
        let Launched { pidfd, mut exit, .. } = launched;
        let limit = hook.timeout.unwrap_or(std::time::Duration::MAX);
        let Ok(ended) = tokio::time::timeout(limit, &mut exit).await else {
            // It may have ended just now.
            let _ = signal_pidfd(&pidfd, Signal::KILL);
            exit.await;
            return Err(Error::new(Kind::TimedOut, format!("no end after {limit:?}")));
        };
        let how = match ended.status {
            ExitStatus::Code(0) => return Ok(()),
            ExitStatus::Code(code) => format!("exit status {code}"),
            ExitStatus::Signal(signal) => format!("killed by signal {}", signal.number()),
            ExitStatus::Unknown => "its end was lost".to_owned(),
        };
        Err(Error::other(how + &printed(output)))
    }
}

/// What was printed into a file, as an error's last words.
pub(crate) fn printed(output: OwnedFd) -> String {
    let mut output = File::from(output);
    let mut text = Vec::new();
    // Without the text the error still says the main thing.
    let _ = output.rewind();
    let _ = output.take(PRINTED).read_to_end(&mut text);
    match String::from_utf8_lossy(&text).trim_end() {
        "" => String::new(),
        text => format!(": {text}"),
    }
}

/// A file in memory.
pub(crate) fn memory(name: &std::ffi::CStr) -> Result<OwnedFd> {
    Ok(memfd_create(name, MFdFlags::MFD_CLOEXEC)?)
}
