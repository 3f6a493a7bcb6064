//! A container's init process, as long as there is one.

use std::{
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use shim_core::{Error, Kind, Result, linux::watch_for};
use tokio::io::Interest;

use super::{member::Member, place, process::Left};
use crate::engine::{cgroup::Cgroup, oom::OomWatch};

/// A container's init process, and where it is.
#[derive(Debug)]
pub(super) struct Life {
    /// Of a member it is the sandbox's: what is done to that is done to all in it.
    pub(super) pidfd: OwnedFd,
    pub(super) cgroup: Option<Cgroup>,
    pub(super) oom: OomWatch,
    /// Its processes are not the host's.
    pub(super) is_sandbox: bool,
    /// It has no process of its own.
    pub(super) member: Option<Arc<Member>>,
}

impl Life {
    /// The life of what a runtime has left.
    ///
    /// # Errors
    /// When there is no descriptor to be had.
    pub(super) fn of(left: &Left) -> Result<Self> {
        let cgroup = place::cgroup(left.process.pid);
        Ok(Self {
            pidfd: left.pidfd.try_clone()?,
            oom: cgroup.as_ref().map_or(OomWatch::None, OomWatch::of_live),
            cgroup,
            is_sandbox: place::is_sandbox(left.process.pid),
            member: left.member.clone(),
        })
    }

    /// Whether the init process has ended, collected or not.
    pub(super) fn has_ended(&self) -> bool {
        self.member.as_ref().is_some_and(|member| member.has_ended()) || has_ended(&self.pidfd)
    }

    /// Waits for the end of the init process, whoever collects it.
    pub(super) async fn until_end(&self) {
        let Some(member) = &self.member else { return until_end(&self.pidfd).await };
        tokio::select! {
            () = member.until_end() => {}
            () = until_end(&self.pidfd) => {}
        }
    }

    /// Refuses what would be done to the whole sandbox.
    ///
    /// # Errors
    /// `Unsupported` for a container that is not all of one.
    pub(super) fn refuse_for_a_member(&self, verb: &str) -> Result<()> {
        let why = || format!("{verb}: the other containers of the pod would have it done, too");
        self.member.as_ref().map_or(Ok(()), |_| Err(Error::new(Kind::Unsupported, why())))
    }
}

/// Waits for the end of the process behind a pidfd, whoever collects it.
pub(super) async fn until_end(pidfd: &OwnedFd) {
    let watched = pidfd.try_clone().map_err(Error::from);
    let watched = watched.and_then(|pidfd| watch_for(pidfd, Interest::READABLE));
    match &watched {
        Ok(pidfd) => drop(pidfd.readable().await),
        // Without that news nothing is cut short.
        Err(_) => std::future::pending().await,
    }
}

/// Whether the process behind a pidfd has ended, collected or not.
pub(super) fn has_ended(pidfd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}
