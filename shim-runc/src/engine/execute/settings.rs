//! Settings of the kernel and of the process: parameters, keyring, scheduling.

use std::{
    ffi::CStr,
    os::fd::{AsFd, OwnedFd},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, open},
    sys::stat::{Mode, umask},
};

use super::{Done, Executor, Fault, In, root, word};
use crate::engine::{
    step::Part,
    sys::{self, Resolve, Scheduling},
    wire::Several,
};

/// The most words of a mask of processors or memory nodes.
pub(crate) const MASK_WORDS: usize = 64;

impl Executor<'_> {
    /// Writes a kernel parameter through a procfs that nobody else can reach.
    pub(super) fn set_sysctl(&mut self, file: &CStr, value: &CStr) -> Done {
        if self.proc.is_none() {
            self.proc = Some(private_proc()?);
        }
        let proc = self.proc.as_ref().ok_or(Errno::EBADF)?;
        let file = sys::open_in(proc.as_fd(), file, libc::O_WRONLY, 0, Resolve::PLAIN)?;
        Ok(sys::write_whole(&file, value.to_bytes())?)
    }
}

/// Opens a procfs of our own; where that is forbidden the host's, which still is at `/proc`.
fn private_proc() -> Done<OwnedFd> {
    if let Ok(proc) = detached_proc() {
        return Ok(proc);
    }
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let proc = open(c"/proc", flags, Mode::empty()).part(Part::Proc)?;
    if root::is_proc(proc.as_fd())? {
        return Ok(proc);
    }
    Err(Fault { part: Part::Proc, number: Errno::EXDEV as i32 })
}

fn detached_proc() -> sys::Result<OwnedFd> {
    let fs = sys::open_filesystem(c"proc")?;
    sys::create_filesystem(fs.as_fd())?;
    sys::detached(fs.as_fd(), 0)
}

/// Starts a session keyring, and gives the container's processes the right to search it.
pub(super) fn join_keyring(name: &CStr) -> Done {
    // KEY_USR_SEARCH: children under other user ids find the keyring, as with runc.
    const USER_MAY_SEARCH: u32 = 0x0008_0000;
    let ring = match sys::join_keyring(name) {
        // A kernel without keys, or a profile that forbids them, has none to protect.
        Err(Errno::ENOSYS) => return Ok(()),
        ring => ring?,
    };
    let mut description = [0; 512];
    let length = sys::describe_key(ring, &mut description)?.min(description.len());
    // `type;uid;gid;permissions;name`, the permissions in hexadecimal digits.
    let permissions = description[..length]
        .split(|byte| *byte == b';')
        .nth(3)
        .and_then(|digits| std::str::from_utf8(digits).ok())
        .and_then(|digits| u32::from_str_radix(digits, 16).ok())
        .ok_or(Errno::EBADMSG)?;
    Ok(sys::set_key_permissions(ring, permissions | USER_MAY_SEARCH)?)
}

pub(super) fn schedule(policy: u32, flags: u64, nice: i32, priority: u32, times: [u64; 3]) -> Done {
    let [runtime, deadline, period] = times;
    let scheduling = Scheduling {
        policy,
        flags,
        nice,
        priority,
        runtime,
        deadline,
        period,
        ..Scheduling::default()
    };
    Ok(sys::set_scheduling(scheduling)?)
}

pub(super) fn set_umask(mask: u64) -> Done {
    umask(Mode::from_bits_truncate(word(mask)?));
    Ok(())
}

/// Lends a mask of the plan as one slice.
pub(super) fn with_mask(
    mask: Several<'_, u64>,
    set: impl FnOnce(&[u64]) -> sys::Result<()>,
) -> Done {
    let mut words = [0; MASK_WORDS];
    let room = words.get_mut(..mask.left()).ok_or(Errno::E2BIG)?;
    for (place, word) in room.iter_mut().zip(mask) {
        *place = word;
    }
    Ok(set(room)?)
}
