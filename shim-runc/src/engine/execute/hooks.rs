//! Hooks of the container's side: run here, as children of the init process.

use std::{ffi::CStr, os::fd::AsFd};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::Signal,
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    unistd::{Whence, lseek},
};

use super::{Done, Executor, Fault, In, program};
use crate::engine::{
    step::Part,
    sys::{self, Cloned},
    wire::{Several, Slot, Text},
};

/// A hook as the plan has it.
pub(super) struct Hook<'plan> {
    pub(super) path: &'plan CStr,
    pub(super) arguments: Several<'plan, Text>,
    pub(super) environment: Several<'plan, Text>,
    pub(super) seconds: u64,
    pub(super) output: Slot,
}

impl Executor<'_> {
    /// Runs a hook to its end.
    pub(super) fn run_hook(&self, hook: Hook<'_>) -> Done {
        let state = self.state.as_ref().ok_or(Errno::EBADF)?;
        lseek(state, 0, Whence::SeekSet)?;
        let limit = hook.seconds;
        let pidfd = match sys::clone_own_child().part(Part::Clone)? {
            Cloned::Parent { pidfd, .. } => pidfd,
            Cloned::Child => {
                let _ = self.become_hook(hook);
                // As a shell says that a command can't be executed.
                sys::exit(126)
            }
        };
        let limit = i32::try_from(limit.saturating_mul(1000)).unwrap_or(i32::MAX);
        let limit = if limit == 0 {
            PollTimeout::NONE
        } else {
            PollTimeout::try_from(limit).unwrap_or(PollTimeout::NONE)
        };
        let in_time = loop {
            match poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], limit) {
                Err(Errno::EINTR) => {}
                ready => break ready? > 0,
            }
        };
        if !in_time {
            sys::signal(pidfd.as_fd(), Signal::SIGKILL as i32)?;
        }
        let ended = waitid(Id::PIDFd(pidfd.as_fd()), WaitPidFlag::WEXITED)?;
        if !in_time {
            return Err(Fault { part: Part::HookTime, number: Errno::ETIMEDOUT as i32 });
        }
        match ended {
            WaitStatus::Exited(_, 0) => Ok(()),
            WaitStatus::Exited(_, code) => Err(Fault { part: Part::HookExit, number: code }),
            WaitStatus::Signaled(_, signal, _) => {
                Err(Fault { part: Part::HookSignal, number: signal as i32 })
            }
            _ => Err(Errno::ECHILD.into()),
        }
    }

    fn become_hook(&self, hook: Hook<'_>) -> Done {
        let state = self.state.as_ref().ok_or(Errno::EBADF)?;
        let (state, output) = (sys::lift(state.as_fd())?, sys::lift(self.file(hook.output)?)?);
        for (number, stream) in [(0, &state), (1, &output), (2, &output)] {
            sys::place(stream.as_fd(), number)?;
        }
        sys::close_on_exec_from(3)?;
        let argv = program::vector(hook.arguments, None)?;
        let envp = program::vector(hook.environment, None)?;
        Err(sys::execute(hook.path, &argv, &envp).into())
    }
}
