//! The stem itself: a process with one thread and next to no memory, from which all others are
//! cloned. A fork costs what the forking process has mapped, and a child of a process with threads
//! may find their locks taken; the stem has neither.
//!
//! It allocates nothing, keeps no file between two requests, and ends with the shim. Its standard
//! streams are the shim's, `/dev/null`.

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

use super::request::{Answer, LENGTH, Outcome, Received};
use crate::engine::{
    execute,
    report::{Failure, Report},
    step::Part,
    sys::{self, Cloned, FILES_PER_MESSAGE, Files},
};

/// Where the stem comes back to.
struct Home {
    /// Its own pid namespace.
    pids: OwnedFd,
    /// Its own time namespace.
    clock: Option<OwnedFd>,
}

impl Home {
    fn open() -> sys::Result<Self> {
        let own = |kind: &CStr| open(kind, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty());
        // A kernel without time namespaces makes none either.
        Ok(Self { pids: own(c"/proc/self/ns/pid")?, clock: own(c"/proc/self/ns/time").ok() })
    }
}

struct Refusal {
    part: Part,
    errno: Errno,
}

type Done<T = ()> = Result<T, Refusal>;

fn at(part: Part) -> impl FnOnce(Errno) -> Refusal {
    move |errno| Refusal { part, errno }
}

/// Serves requests until the shim is gone. The caller has just been executed.
pub(super) fn serve(socket: &OwnedFd) {
    let Ok(home) = settle() else { return };
    let mut files = Files::new();
    let mut bytes = [0; LENGTH];
    loop {
        files.clear();
        // A shim that is gone, or says what makes no sense, needs no stem.
        if attend(socket.as_fd(), &home, &mut bytes, &mut files).is_err() {
            return;
        }
    }
}

/// Makes an ordinary process into the stem.
fn settle() -> sys::Result<Home> {
    // Its children enter containers while it is still the shim's program in memory: no process
    // of a container may look into them, or open what they have open.
    prctl::set_dumpable(false)?;
    prctl::set_name(c"shim-stem")?;
    // A shim that has died before this is noticed by its end of the socket.
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    sys::reset_signals();
    // Modes of directories and devices are the plan's.
    umask(Mode::empty());
    chdir(c"/")?;
    Home::open()
}

/// Serves one request.
fn attend(
    socket: BorrowedFd<'_>,
    home: &Home,
    bytes: &mut [u8; LENGTH],
    files: &mut Files,
) -> sys::Result<()> {
    let (request, complete) = hear(socket, bytes, files)?;
    let work = Work { socket, home, request, files };
    if !complete {
        return work.answer(Err(Refusal { part: Part::Clone, errno: Errno::EMFILE }), 0);
    }
    if work.request.joins.left() == 0 {
        let made = work.clone_at_home();
        // Another container's child must not land in this one's namespaces: no stem is better than one
        // that stands elsewhere. A user's can't go back; it makes one process, and ends.
        let back = work.go_back();
        work.answer(made, 0)?;
        return back;
    }
    match work.clone_between() {
        Ok(Cloned::Child) => {
            // Nobody is left to be told of an answer that can't be sent.
            let _ = work.answer(work.clone_elsewhere(), sys::own_pid());
            sys::exit(0)
        }
        Ok(Cloned::Parent { .. }) => Ok(()),
        Err(errno) => work.answer(Err(Refusal { part: Part::Clone, errno }), 0),
    }
}

/// Receives a request, and says whether all of its files came along.
fn hear<'bytes>(
    socket: BorrowedFd<'_>,
    bytes: &'bytes mut [u8; LENGTH],
    files: &mut Files,
) -> sys::Result<(Received<'bytes>, bool)> {
    let (length, mut complete) = match sys::receive(socket, bytes, files) {
        Ok(0) => return Err(Errno::EPIPE),
        Ok(length) => (length, true),
        // Files were lost for want of descriptors, the bytes were not.
        Err(Errno::EMSGSIZE) => (LENGTH, false),
        Err(errno) => return Err(errno),
    };
    let request = Received::read(&bytes[..length]).map_err(|_| Errno::EBADMSG)?;
    for _ in 1..request.files.div_ceil(FILES_PER_MESSAGE as u64) {
        match sys::receive(socket, &mut [0], files) {
            Ok(0) => return Err(Errno::EPIPE),
            Ok(_) => {}
            Err(Errno::EMSGSIZE) => complete = false,
            Err(errno) => return Err(errno),
        }
    }
    complete &= files.count() as u64 == request.files;
    Ok((request, complete))
}

/// One request with all that belongs to it.
struct Work<'a> {
    socket: BorrowedFd<'a>,
    home: &'a Home,
    request: Received<'a>,
    files: &'a Files,
}

impl Work<'_> {
    fn answer(&self, made: Done<(i32, OwnedFd)>, between: i32) -> sys::Result<()> {
        let number = self.request.number;
        match made {
            Ok((pid, pidfd)) => {
                let answer = Answer { number, between, outcome: Outcome::Made { pid } };
                sys::send(self.socket, &answer.bytes(), &[pidfd.as_fd()])
            }
            Err(Refusal { part, errno }) => {
                let answer = Answer { number, between, outcome: Outcome::Refused { part, errno } };
                sys::send(self.socket, &answer.bytes(), &[])
            }
        }
    }

    /// Clones from the stem.
    fn clone_at_home(&self) -> Done<(i32, OwnedFd)> {
        let cgroup = self.cgroup().map_err(at(Part::Clone));
        let ready = self.set_pids().and_then(|()| self.set_clock());
        ready.and(cgroup).and_then(|cgroup| self.clone(cgroup))
    }

    /// Has the stem's next children in its own namespaces again.
    fn go_back(&self) -> sys::Result<()> {
        if self.request.pids.is_some() {
            sys::join_namespace(self.home.pids.as_fd(), libc::CLONE_NEWPID)?;
        }
        if self.request.clock.is_some() {
            let clock = self.home.clock.as_ref().ok_or(Errno::ENOSYS)?;
            sys::join_namespace(clock.as_fd(), NEWTIME)?;
        }
        Ok(())
    }

    /// Clones the process in between. It starts in the cgroup that the new one is to inherit: what
    /// leads to that cgroup is of the host, and stays out of the container.
    fn clone_between(&self) -> sys::Result<Cloned> {
        sys::clone_process(0, self.cgroup()?)
    }

    /// Clones from a process in between, which joins namespaces first and ends afterwards.
    fn clone_elsewhere(&self) -> Done<(i32, OwnedFd)> {
        self.set_pids()?;
        self.set_clock()?;
        for (namespace, kind) in self.request.joins.clone() {
            let kind = i32::try_from(kind).map_err(|_| at(Part::Join)(Errno::ERANGE))?;
            let namespace = self.files.get(namespace.0).map_err(at(Part::Join))?;
            sys::join_namespace(namespace, kind).map_err(at(Part::Join))?;
        }
        // Who may trace in there can look into the new process from its first moment on.
        let clock = self.home.clock.as_ref().map(AsFd::as_fd);
        let own = [Some(self.home.pids.as_fd()), clock, self.cgroup().unwrap_or_default()];
        own.into_iter().flatten().for_each(sys::close_early);
        self.clone(None)
    }

    /// Chooses the pid namespace of children.
    fn set_pids(&self) -> Done {
        let Some(pids) = self.request.pids else { return Ok(()) };
        let pids = self.files.get(pids.0).map_err(at(Part::Join))?;
        sys::join_namespace(pids, libc::CLONE_NEWPID).map_err(at(Part::Join))
    }

    /// Makes the time namespace of children. Its offsets can be set until somebody is in it, so
    /// it has to be made before the clone.
    fn set_clock(&self) -> Done {
        let Some(offsets) = self.request.clock else { return Ok(()) };
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

    /// The cgroup of v2 that is asked for.
    fn cgroup(&self) -> sys::Result<Option<BorrowedFd<'_>>> {
        self.request.cgroup.map(|cgroup| self.files.get(cgroup.0)).transpose()
    }

    fn clone(&self, cgroup: Option<BorrowedFd<'_>>) -> Done<(i32, OwnedFd)> {
        match sys::clone_process(self.request.namespaces, cgroup).map_err(at(Part::Clone))? {
            Cloned::Child => self.become_child(),
            Cloned::Parent { pid, pidfd } => Ok((pid, pidfd)),
        }
    }

    fn become_child(&self) -> ! {
        // A child that waits for its start for days must not keep the stem's socket open: the
        // shim could no longer tell that the stem is gone.
        sys::close_early(self.socket);
        if self.request.plan == 0 {
            self.await_plan()
        }
        run(self.request.plan, self.files)
    }

    /// Runs the plan that comes by the child's own socket. Without one there is nothing to become.
    #[inline(never)] // What it needs of the stack would else be the stem's for good.
    fn await_plan(&self) -> ! {
        let mut files = Files::new();
        let mut bytes = [0; LENGTH];
        let Ok(socket) = self.files.get(0) else { sys::exit(1) };
        let heard = hear(socket, &mut bytes, &mut files).map(|(told, whole)| (told.plan, whole));
        match heard {
            Ok((plan, true)) => {
                // A plan finds the socket among its files, where another one stands for it.
                let own = socket.try_clone_to_owned().map_err(|_| Errno::EMFILE);
                match own.and_then(|own| files.replace(execute::SOCKET.0, own)) {
                    Ok(()) => run(plan, &files),
                    Err(_) => sys::exit(1),
                }
            }
            Ok((_, false)) => {
                // It is no step's fault.
                let (step, part, number) = (u32::MAX, Part::Whole, Errno::EMFILE as i32);
                let failure = Report::Failed(Failure { step, part, number });
                let _ = sys::write_whole(socket, &failure.bytes());
                sys::exit(1)
            }
            Err(_) => sys::exit(1),
        }
    }
}

fn run(plan: u64, files: &Files) -> ! {
    let plan = usize::try_from(plan).map_err(|_| Errno::EOVERFLOW);
    let plan = plan.and_then(|length| sys::map_bytes(files.get(0)?, length));
    // Without a plan the first order is already malformed, and that is reported.
    execute::run(plan.unwrap_or_default(), files)
}

/// libc has it for one C library only.
const NEWTIME: i32 = 0x80;
