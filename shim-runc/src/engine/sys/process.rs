//! What a process is allowed, who it is and how it is scheduled.

use std::{
    ffi::CStr,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd},
    ptr,
};

use nix::errno::Errno;

use super::{Result, done, owned};

/// `PR_CAPBSET_READ` and kin are in libc for every target; the ambient set's commands are not.
const PR_CAP_AMBIENT: i32 = 47;
const PR_CAP_AMBIENT_RAISE: libc::c_ulong = 2;
const PR_CAP_AMBIENT_CLEAR_ALL: libc::c_ulong = 4;

/// `SECCOMP_FILTER_FLAG_NEW_LISTENER`.
pub(crate) const NEW_LISTENER: u32 = 1 << 3;

/// Effective, permitted and inheritable capabilities, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Capabilities {
    pub(crate) effective: u64,
    pub(crate) permitted: u64,
    pub(crate) inheritable: u64,
}

/// Moves this process into a namespace, setns(2).
///
/// `kind` is the `CLONE_NEW*` flag that the descriptor has to match, or several with a pidfd.
pub(crate) fn join_namespace(namespace: BorrowedFd<'_>, kind: i32) -> Result<()> {
    // SAFETY: setns takes integers; the descriptor is open for the length of the call.
    done(unsafe { libc::syscall(libc::SYS_setns, namespace.as_raw_fd(), kind) })
}

/// Moves this process into new namespaces, unshare(2).
pub(crate) fn new_namespaces(kinds: i32) -> Result<()> {
    // SAFETY: unshare takes an integer.
    done(unsafe { libc::syscall(libc::SYS_unshare, kinds) })
}

/// Sets real, effective and saved user id, setresuid(2) of this thread.
pub(crate) fn set_user(uid: u32) -> Result<()> {
    // SAFETY: setresuid takes integers. The raw call acts on this thread, the only one.
    done(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) })
}

/// Sets real, effective and saved group id, setresgid(2) of this thread.
pub(crate) fn set_group(gid: u32) -> Result<()> {
    // SAFETY: setresgid takes integers. The raw call acts on this thread, the only one.
    done(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) })
}

/// Sets the supplementary groups, setgroups(2) of this thread.
pub(crate) fn set_groups(groups: &[u32]) -> Result<()> {
    // SAFETY: the slice lives for the length of the call.
    done(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) })
}

/// Takes a capability out of the bounding set, prctl(2).
pub(crate) fn drop_bounding(capability: u32) -> Result<()> {
    let capability = libc::c_ulong::from(capability);
    // SAFETY: the command takes an integer.
    Errno::result(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) }).map(drop)
}

/// Empties the ambient set, prctl(2).
pub(crate) fn clear_ambient() -> Result<()> {
    // SAFETY: the command takes integers.
    Errno::result(unsafe { libc::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) })
        .map(drop)
}

/// Adds a capability to the ambient set, prctl(2).
pub(crate) fn raise_ambient(capability: u32) -> Result<()> {
    let capability = libc::c_ulong::from(capability);
    // SAFETY: the command takes integers.
    Errno::result(unsafe { libc::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0) })
        .map(drop)
}

/// Sets this thread's capabilities, capset(2).
pub(crate) fn set_capabilities(sets: Capabilities) -> Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    #[repr(C)]
    struct Half {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    const VERSION_3: u32 = 0x2008_0522;
    let word = |set: u64, at: usize| {
        let [a, b, c, d, e, f, g, h] = set.to_le_bytes();
        u32::from_le_bytes(if at == 0 { [a, b, c, d] } else { [e, f, g, h] })
    };
    let half = |at| Half {
        effective: word(sets.effective, at),
        permitted: word(sets.permitted, at),
        inheritable: word(sets.inheritable, at),
    };
    let header = Header { version: VERSION_3, pid: 0 };
    let halves = [half(0), half(1)];
    // SAFETY: version 3 reads a header and two halves, which live for the length of the call.
    done(unsafe { libc::syscall(libc::SYS_capset, &raw const header, halves.as_ptr()) })
}

/// Sets a resource limit of a process, 0 being this one, and returns nothing; prlimit(2).
pub(crate) fn set_limit(pid: i32, resource: u32, soft: u64, hard: u64) -> Result<()> {
    let limit = [soft, hard];
    let none: *mut u64 = ptr::null_mut();
    // SAFETY: the kernel's rlimit64 is two words, which live for the length of the call.
    done(unsafe { libc::syscall(libc::SYS_prlimit64, pid, resource, limit.as_ptr(), none) })
}

/// Reads a resource limit of a process, 0 being this one: soft, then hard; prlimit(2).
pub(crate) fn limit(pid: i32, resource: u32) -> Result<(u64, u64)> {
    let mut limit = [0_u64; 2];
    let none: *const u64 = ptr::null();
    // SAFETY: the kernel's rlimit64 is two words, which live for the length of the call.
    done(unsafe { libc::syscall(libc::SYS_prlimit64, pid, resource, none, limit.as_mut_ptr()) })?;
    Ok((limit[0], limit[1]))
}

/// Sets the execution domain, personality(2).
pub(crate) fn set_personality(domain: u64) -> Result<()> {
    // SAFETY: personality takes an integer.
    done(unsafe { libc::syscall(libc::SYS_personality, domain) })
}

/// Sets this thread's io class and priority, ioprio_set(2).
pub(crate) fn set_io_priority(priority: u32) -> Result<()> {
    const IOPRIO_WHO_PROCESS: i32 = 1;
    // SAFETY: ioprio_set takes integers.
    done(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, priority) })
}

/// How a thread is scheduled: `struct sched_attr` up to `period` (Linux 3.14).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scheduling {
    pub(crate) size: u32,
    pub(crate) policy: u32,
    pub(crate) flags: u64,
    pub(crate) nice: i32,
    pub(crate) priority: u32,
    pub(crate) runtime: u64,
    pub(crate) deadline: u64,
    pub(crate) period: u64,
}

/// Sets this thread's scheduling, sched_setattr(2).
pub(crate) fn set_scheduling(mut scheduling: Scheduling) -> Result<()> {
    scheduling.size = 48;
    // SAFETY: the attributes say their size and live for the length of the call.
    done(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const scheduling, 0) })
}

/// Lets this thread run on the processors of a bit mask, sched_setaffinity(2).
pub(crate) fn set_affinity(mask: &[u64]) -> Result<()> {
    // SAFETY: the mask lives for the length of the call.
    done(unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(mask), mask.as_ptr()) })
}

/// Sets this thread's memory policy, set_mempolicy(2); `nodes` is a bit mask.
pub(crate) fn set_memory_policy(mode: u32, nodes: &[u64]) -> Result<()> {
    let bits = if nodes.is_empty() { 0 } else { nodes.len() * 64 + 1 };
    let mask = if nodes.is_empty() { ptr::null() } else { nodes.as_ptr() };
    // SAFETY: the kernel reads `bits - 1` bits of the mask, which are there.
    done(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) })
}

/// Starts a session keyring of this name and lets its owner's processes search it; keyctl(2).
pub(crate) fn join_keyring(name: &CStr) -> Result<i32> {
    const KEYCTL_JOIN_SESSION_KEYRING: i32 = 1;
    // SAFETY: the name ends with NUL.
    let ring =
        unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) };
    let ring = Errno::result(ring)?;
    i32::try_from(ring).map_err(|_| Errno::EOVERFLOW)
}

/// Sets a key's permissions, keyctl(2).
pub(crate) fn set_key_permissions(key: i32, permissions: u32) -> Result<()> {
    const KEYCTL_SETPERM: i32 = 5;
    // SAFETY: the command takes integers.
    done(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_SETPERM, key, permissions) })
}

/// Reads a key's description, `type;uid;gid;permissions;name`, keyctl(2); returns its length.
pub(crate) fn describe_key(key: i32, into: &mut [u8]) -> Result<usize> {
    const KEYCTL_DESCRIBE: i32 = 6;
    let (start, room) = (into.as_mut_ptr(), into.len());
    // SAFETY: the kernel writes no more than the given length.
    let length = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_DESCRIBE, key, start, room) };
    usize::try_from(Errno::result(length)?).map_err(|_| Errno::EIO)
}

/// Filters this thread's system calls from now on, seccomp(2).
///
/// `program` holds instructions of eight bytes as `struct sock_filter` has them. With [`NEW_LISTENER`]
/// among the flags there is a descriptor for seccomp_unotify(2).
pub(crate) fn filter_calls(program: &[u8], flags: u32) -> Result<Option<OwnedFd>> {
    const SECCOMP_SET_MODE_FILTER: u32 = 1;
    #[repr(C)]
    struct Program {
        length: u16,
        first: *const u8,
    }
    let length = u16::try_from(program.len() / 8).map_err(|_| Errno::E2BIG)?;
    let program = Program { length, first: program.as_ptr() };
    // SAFETY: the kernel copies `length` instructions of eight bytes, which are there; it has no
    // demand on their alignment.
    let loaded = unsafe {
        libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &raw const program)
    };
    if flags & NEW_LISTENER == 0 {
        return done(loaded).map(|()| None);
    }
    // SAFETY: with this flag it returns a descriptor made for us.
    unsafe { owned(loaded) }.map(Some)
}

/// Copies a descriptor of another process, pidfd_getfd(2).
pub(crate) fn take_file(pidfd: BorrowedFd<'_>, number: RawFd) -> Result<OwnedFd> {
    // SAFETY: the call takes integers; the descriptor is open for its length.
    let taken = unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0) };
    // SAFETY: it returns a descriptor made for us.
    unsafe { owned(taken) }
}

/// Signals the process behind a pidfd, pidfd_send_signal(2).
pub(crate) fn signal(pidfd: BorrowedFd<'_>, number: i32) -> Result<()> {
    let none: *const libc::siginfo_t = ptr::null();
    // SAFETY: the descriptor is open for the length of the call; no siginfo is passed.
    done(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), number, none, 0) })
}
