//! The stem itself: a process with one thread and next to no memory, from which all others are
//! cloned. A fork costs what the forking process has mapped, and a child of a process with threads
//! may find their locks taken; the stem has neither.
//!
//! It allocates nothing, keeps no file between two requests, and ends with the shim.

use std::{
    ffi::CStr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, open},
    sys::{
        prctl,
        signal::Signal,
        stat::{Mode, umask},
    },
    unistd::chdir,
};

use super::request::{Answer, LENGTH, Received};
use crate::engine::{
    execute,
    step::Part,
    sys::{self, Cloned, Files},
};

/// What the stem has from the time before it was one.
pub(super) struct Home {
    /// Its own pid namespace, to come back to.
    pub(super) pids: OwnedFd,
    /// Its own time namespace.
    pub(super) clock: Option<OwnedFd>,
}

struct Refusal {
    part: Part,
    errno: Errno,
}

type Done<T = ()> = Result<T, Refusal>;

fn at(part: Part) -> impl FnOnce(Errno) -> Refusal {
    move |errno| Refusal { part, errno }
}

/// Serves requests until the shim is gone. The caller is a fresh fork.
pub(super) fn serve(socket: &OwnedFd, home: &Home, shim: i32) {
    if settle(shim).is_err() {
        return;
    }
    let mut files = Files::new();
    let mut bytes = [0; LENGTH];
    loop {
        files.clear();
        match sys::receive(socket.as_fd(), &mut bytes, &mut files) {
            Ok(0) => return,
            Ok(length) => {
                if attend(socket.as_fd(), home, &bytes[..length], &mut files).is_err() {
                    return;
                }
            }
            // More files than anything asks for: the message is lost, and the request with it.
            Err(Errno::EMSGSIZE) => {
                let lost = Refusal { part: Part::Plan, errno: Errno::EMSGSIZE };
                if answer(socket.as_fd(), Err(lost), 0).is_err() {
                    return;
                }
            }
            Err(_) => return,
        }
    }
}

/// Makes an ordinary fork into the stem.
fn settle(shim: i32) -> sys::Result<()> {
    // Its children enter containers while it is still the shim's program in memory: no process
    // of a container may look into them, or open what they have open.
    prctl::set_dumpable(false)?;
    prctl::set_name(c"shim-stem")?;
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    if sys::parent_pid() != shim {
        // The shim died before it would have been told to us.
        return Err(Errno::ESRCH);
    }
    sys::reset_signals();
    // The streams' numbers are taken, so that no file of a request gets one of them.
    for _ in 0..3 {
        let null = open(c"/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?;
        std::mem::forget(null);
    }
    // Modes of directories and devices are the plan's.
    umask(Mode::empty());
    chdir(c"/")
}

fn attend(socket: BorrowedFd<'_>, home: &Home, bytes: &[u8], files: &mut Files) -> sys::Result<()> {
    let Ok(request) = Received::read(bytes) else {
        let refusal = Refusal { part: Part::Plan, errno: Errno::EBADMSG };
        return answer(socket, Err(refusal), 0);
    };
    while (files.count() as u64) < request.files {
        if sys::receive(socket, &mut [0], files)? == 0 {
            return Err(Errno::EPIPE);
        }
    }
    if request.joins.left() == 0 {
        let made = clone_at_home(home, &request, files);
        return answer(socket, made, 0);
    }
    match sys::clone_process(0, None) {
        Ok(Cloned::Child) => {
            let made = clone_elsewhere(&request, files);
            // It was not answered for: whoever reads finds out from the end of this process.
            let _ = answer(socket, made, sys::own_pid());
            sys::exit(0)
        }
        Ok(Cloned::Parent { .. }) => Ok(()),
        Err(errno) => answer(socket, Err(Refusal { part: Part::Clone, errno }), 0),
    }
}

fn answer(socket: BorrowedFd<'_>, made: Done<(i32, OwnedFd)>, between: i32) -> sys::Result<()> {
    match made {
        Ok((pid, pidfd)) => {
            sys::send(socket, &Answer::Made { pid, between }.bytes(), &[pidfd.as_fd()])
        }
        Err(Refusal { part, errno }) => {
            sys::send(socket, &Answer::Refused { part, errno, between }.bytes(), &[])
        }
    }
}

/// Clones from the stem, whose own namespaces are the same afterwards.
fn clone_at_home(home: &Home, request: &Received<'_>, files: &Files) -> Done<(i32, OwnedFd)> {
    let set = set_pids(request, files).and_then(|()| set_clock(request));
    let made = set.and_then(|()| clone(request, files));
    if request.pids.is_some() {
        let back = sys::join_namespace(home.pids.as_fd(), libc::CLONE_NEWPID);
        // Another container's child must not land in this one's namespace.
        back.unwrap_or_else(|_| sys::exit(1));
    }
    if request.clock.is_some() {
        let back = home.clock.as_ref().map(|clock| sys::join_namespace(clock.as_fd(), NEWTIME));
        back.unwrap_or(Err(Errno::ENOSYS)).unwrap_or_else(|_| sys::exit(1));
    }
    made
}

const NEWTIME: i32 = 0x80;

/// Clones from a process in between, which joins namespaces first and ends afterwards.
fn clone_elsewhere(request: &Received<'_>, files: &Files) -> Done<(i32, OwnedFd)> {
    set_pids(request, files)?;
    set_clock(request)?;
    for (namespace, kind) in request.joins.clone() {
        let kind = i32::try_from(kind).map_err(|_| at(Part::Join)(Errno::ERANGE))?;
        let namespace = files.get(namespace.0).map_err(at(Part::Join))?;
        sys::join_namespace(namespace, kind).map_err(at(Part::Join))?;
    }
    clone(request, files)
}

/// Chooses the pid namespace of children.
fn set_pids(request: &Received<'_>, files: &Files) -> Done {
    let Some(pids) = request.pids else { return Ok(()) };
    let pids = files.get(pids.0).map_err(at(Part::Join))?;
    sys::join_namespace(pids, libc::CLONE_NEWPID).map_err(at(Part::Join))
}

/// Makes the time namespace of children. Its offsets can be set until somebody is in it, so it
/// has to be made before the clone.
fn set_clock(request: &Received<'_>) -> Done {
    let Some(offsets) = request.clock else { return Ok(()) };
    sys::new_namespaces(NEWTIME).map_err(at(Part::Clock))?;
    if offsets.is_empty() {
        return Ok(());
    }
    let write = |path: &CStr| -> sys::Result<()> {
        let file = open(path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        sys::write_whole(&file, offsets.to_bytes())
    };
    write(c"/proc/self/timens_offsets").map_err(at(Part::Clock))
}

fn clone(request: &Received<'_>, files: &Files) -> Done<(i32, OwnedFd)> {
    let cgroup = request.cgroup.map(|cgroup| files.get(cgroup.0)).transpose();
    let cgroup = cgroup.map_err(at(Part::Clone))?;
    match sys::clone_process(request.namespaces, cgroup).map_err(at(Part::Clone))? {
        Cloned::Child => become_child(request, files),
        Cloned::Parent { pid, pidfd } => Ok((pid, pidfd)),
    }
}

fn become_child(request: &Received<'_>, files: &Files) -> ! {
    let plan = usize::try_from(request.plan).map_err(|_| Errno::EOVERFLOW);
    let plan = plan.and_then(|length| sys::map_bytes(files.get(0)?, length));
    // Without a plan the first order is already malformed, and that is reported.
    execute::run(plan.unwrap_or_default(), files)
}
