//! From a plan to a process: opens what it needs, asks the stem, and stays until it stands.

use std::{
    io::Write,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, SealFlag, fcntl},
    sys::{
        memfd::{MFdFlags, memfd_create},
        socket::{AddressFamily, SockFlag, SockType, socketpair},
    },
};
use shim_core::{
    Context, Error, Kind, Result,
    backend::ExitFuture,
    linux::{Reaper, signal_pidfd, watch},
    model::{ExitStatus, Pid, Signal},
};
use tokio::io::unix::AsyncFd;

use super::{
    files::{self, Given, Opened, Spaces},
    hooks::{self, Hooked},
    plan::{FIRST_SLOT, Mappings, Plan},
    stem::{Made, Refused, Request, Stem},
    sys::{self, Files},
    talk::{Gate, Talk, Trouble},
    wire::Slot,
};

/// A process that runs a plan, or has run it.
pub(crate) struct Launched {
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
    /// Has to be awaited: that collects the process.
    pub(crate) exit: ExitFuture,
    pub(crate) terminal: Option<OwnedFd>,
    /// The way to an init process that waits for its start.
    pub(crate) gate: Option<Gate>,
}

impl Launched {
    /// Ends it, whatever it waits for.
    pub(crate) async fn end(self) {
        drop(self.gate);
        // It may have ended by itself; then there is nobody to signal.
        let _ = signal_pidfd(&self.pidfd, Signal::KILL);
        self.exit.await;
    }
}

/// A process that waits for its plan. Dropped, it ends, but is not collected.
pub(crate) struct Waiting {
    made: Made,
    exit: ExitFuture,
    socket: AsyncFd<OwnedFd>,
    /// The process's own end, which belongs to its plan.
    theirs: OwnedFd,
}

impl Waiting {
    /// Its pid.
    pub(crate) fn pid(&self) -> Pid {
        self.made.pid
    }

    /// Ends it.
    pub(crate) async fn dismiss(self) {
        end(&self.made, self.exit).await;
    }
}

/// Kills a process and collects it.
async fn end(made: &Made, exit: ExitFuture) -> ExitStatus {
    // It may have ended by itself; then there is nobody to signal.
    let _ = signal_pidfd(&made.pidfd, Signal::KILL);
    exit.await.status
}

/// A plan in memory, and all of its files.
pub(crate) struct Material<'a> {
    /// The length of the plan in bytes.
    pub(crate) length: u64,
    memory: OwnedFd,
    socket: OwnedFd,
    opened: Vec<Opened<'a>>,
}

impl<'a> Material<'a> {
    fn gather(plan: &Plan, given: &Given<'a>, spaces: &Spaces, socket: OwnedFd) -> Result<Self> {
        let count = plan.sources.len() + FIRST_SLOT;
        if count > Files::ROOM {
            let why = format!("the spec needs {count} files at once");
            return Err(Error::new(Kind::ResourceExhausted, why));
        }
        let opened = files::open_all(plan, given, spaces)?;
        let bytes = plan.bytes();
        let memory = sealed(&bytes).context("write the plan")?;
        Ok(Self { length: bytes.len() as u64, memory, socket, opened })
    }

    /// The files by their slots.
    pub(crate) fn files(&self) -> Vec<BorrowedFd<'_>> {
        let mut files = vec![self.memory.as_fd(), self.socket.as_fd()];
        files.extend(self.opened.iter().map(AsFd::as_fd));
        files
    }
}

/// Makes processes from plans.
#[derive(Clone, Debug)]
pub(crate) struct Launcher {
    stem: Stem,
    reaper: Reaper,
}

impl Launcher {
    pub(crate) fn new(stem: Stem, reaper: Reaper) -> Self {
        Self { stem, reaper }
    }

    /// Has the stem begin, which takes as long as a plan does.
    pub(crate) async fn warm_up(&self) {
        self.stem.grow().await;
    }

    /// Makes a process and stays with it until it waits for its start, or for a plan that waits
    /// for nothing until its program runs.
    ///
    /// # Errors
    /// The step that failed. The process has ended and is collected.
    pub(crate) async fn launch(
        &self,
        plan: &Plan,
        given: &Given<'_>,
        hooked: Option<&Hooked>,
    ) -> Result<Launched> {
        self.launch_and(plan, given, hooked, || Ok(Vec::new()), |_| Ok(())).await
    }

    /// The same for a process that joins a cgroup: its `tasks` files are opened while the process is
    /// cloned, and `born` is called when it is there, while it runs its plan.
    ///
    /// # Errors
    /// As above, or what these two say.
    pub(crate) async fn launch_and(
        &self,
        plan: &Plan,
        given: &Given<'_>,
        hooked: Option<&Hooked>,
        tasks: impl FnOnce() -> Result<Vec<OwnedFd>>,
        born: impl FnOnce(Pid) -> Result<()>,
    ) -> Result<Launched> {
        let (ours, theirs) = socket_pair()?;
        let output = output_of(given, hooked)?;
        let given = Given { output: output.as_ref().map(AsFd::as_fd), ..*given };
        let spaces = self.spaces(plan).await?;
        let mut opened = Ok(Vec::new());
        let open = || opened = tasks();
        let (made, exit) = self.make(plan, &given, &spaces, theirs, open).await?;
        drop(spaces);
        let talk = Talk::new(plan, watch(ours)?, made.pid);
        let begun = opened.and_then(|tasks| talk.hand_over(tasks)).and_then(|()| born(made.pid));
        self.stand((made, exit), talk, begun, (hooked, output)).await
    }

    /// Makes a process that has no plan yet, in a cgroup of v2 if there is one, and does something while
    /// the stem does it.
    ///
    /// # Errors
    /// Why there is no process.
    pub(crate) async fn ahead(
        &self,
        namespaces: u64,
        unified: Option<BorrowedFd<'_>>,
        meanwhile: impl FnOnce(),
    ) -> Result<Waiting> {
        let (ours, theirs) = socket_pair()?;
        let mut files = vec![theirs.as_fd()];
        files.extend(unified);
        let cgroup = unified.map(|_| Slot(1));
        let request = Request { namespaces, cgroup, ..Request::default() };
        let (made, exit) = self.ask(request, &files, meanwhile).await?;
        Ok(Waiting { made, exit, socket: watch(ours)?, theirs })
    }

    /// Gives a process that waits for it a plan, with the `tasks` files of its cgroup, and goes on as
    /// [`Self::launch_and`] does.
    ///
    /// # Errors
    /// As for [`Self::launch_and`].
    pub(crate) async fn launch_waiting(
        &self,
        waiting: Waiting,
        plan: &Plan,
        given: &Given<'_>,
        hooked: Option<&Hooked>,
        tasks: Vec<OwnedFd>,
        born: impl FnOnce(Pid) -> Result<()>,
    ) -> Result<Launched> {
        let Waiting { made, exit, socket, theirs } = waiting;
        let output = output_of(given, hooked);
        let talk = Talk::new(plan, socket, made.pid);
        let begun: Result<Option<OwnedFd>> = async {
            let output = output?;
            let given = Given { output: output.as_ref().map(AsFd::as_fd), ..*given };
            let spaces = self.spaces(plan).await?;
            talk.tell(&Material::gather(plan, &given, &spaces, theirs)?).await?;
            talk.hand_over(tasks)?;
            born(made.pid)?;
            Ok(output)
        }
        .await;
        let (begun, output) = match begun {
            Ok(output) => (Ok(()), output),
            Err(err) => (Err(err), None),
        };
        self.stand((made, exit), talk, begun, (hooked, output)).await
    }

    /// Stays with a process until it stands; one that does not is ended.
    async fn stand(
        &self,
        (made, exit): (Made, ExitFuture),
        mut talk: Talk<'_>,
        begun: Result<()>,
        (hooked, output): (Option<&Hooked>, Option<OwnedFd>),
    ) -> Result<Launched> {
        let stands = match begun {
            Ok(()) => talk.listen(self, hooked).await,
            Err(err) => Err(Trouble::Ours(err)),
        };
        match stands {
            Ok(waits) => {
                let (terminal, gate) = talk.part(waits, output);
                let Made { pid, pidfd } = made;
                Ok(Launched { pid, pidfd, exit, terminal, gate })
            }
            Err(trouble) => {
                let ended = end(&made, exit).await;
                Err(talk.explain(trouble, ended, output))
            }
        }
    }

    async fn make(
        &self,
        plan: &Plan,
        given: &Given<'_>,
        spaces: &Spaces,
        socket: OwnedFd,
        meanwhile: impl FnOnce(),
    ) -> Result<(Made, ExitFuture)> {
        let material = Material::gather(plan, given, spaces, socket)?;
        let request = Request { plan: material.length, ..plan.request.clone() };
        self.ask(request, &material.files(), meanwhile).await
    }

    /// Has the stem make a process, and takes it over.
    async fn ask(
        &self,
        request: Request,
        files: &[BorrowedFd<'_>],
        meanwhile: impl FnOnce(),
    ) -> Result<(Made, ExitFuture)> {
        let request = Request { files: files.len() as u64, ..request };
        let hold = self.reaper.hold();
        let made = self.stem.make(&request, files, meanwhile).await.map_err(refused)?;
        match made.pidfd.try_clone() {
            Ok(pidfd) => {
                let exit = hold.adopt(made.pid, pidfd);
                Ok((made, exit))
            }
            // Without a second descriptor the first one has to do for its end.
            Err(err) => {
                let _ = signal_pidfd(&made.pidfd, Signal::KILL);
                hold.adopt(made.pid, made.pidfd).await;
                Err(Error::from(err).context("copy a pidfd"))
            }
        }
    }

    /// Makes the user namespaces that idmapped mounts of a plan take their mappings from.
    async fn spaces(&self, plan: &Plan) -> Result<Spaces> {
        let mut spaces = Spaces::default();
        for mappings in plan.mount_mappings() {
            if spaces.get(mappings).is_none() {
                let space = Box::pin(self.space(mappings)).await;
                spaces.add(mappings.clone(), space.context("make a mount's user namespace")?);
            }
        }
        Ok(spaces)
    }

    /// A user namespace lives as long as somebody is in it, or has it open: somebody is, until it
    /// is open.
    async fn space(&self, mappings: &Mappings) -> Result<OwnedFd> {
        let plan = Plan::user_namespace(mappings);
        let launched = self.launch(&plan, &Given::default(), None).await?;
        let space = std::fs::File::open(format!("/proc/{}/ns/user", launched.pid));
        drop(launched.gate);
        launched.exit.await;
        Ok(space?.into())
    }
}

fn refused(refused: Refused) -> Error {
    match refused {
        Refused::Gone(err) => err,
        Refused::Kernel(part, errno) => {
            let kind = match errno {
                Errno::EAGAIN | Errno::ENOMEM | Errno::EMFILE | Errno::ENOSPC => {
                    Kind::ResourceExhausted
                }
                _ => Kind::Other,
            };
            let err = Error::from(errno).with_kind(kind);
            err.context(part.what().unwrap_or("clone a process"))
        }
    }
}

/// Where the hooks of a plan print: what is given for that, else memory, and nothing without hooks.
fn output_of(given: &Given<'_>, hooked: Option<&Hooked>) -> Result<Option<OwnedFd>> {
    match given.output {
        Some(output) => Ok(Some(output.try_clone_to_owned()?)),
        None => hooked.map(|_| hooks::memory(c"output")).transpose(),
    }
}

/// Puts bytes into memory that nobody can change any more.
fn sealed(bytes: &[u8]) -> Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let memory = std::fs::File::from(memfd_create(c"plan", flags)?);
    (&memory).write_all(bytes)?;
    let seals = SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_GROW
        | SealFlag::F_SEAL_WRITE
        | SealFlag::F_SEAL_SEAL;
    fcntl(&memory, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(memory.into())
}

/// A socket for one child: our end is for the runtime, the child's blocks.
fn socket_pair() -> Result<(OwnedFd, OwnedFd)> {
    let make = || -> sys::Result<(OwnedFd, OwnedFd)> {
        let kind = SockType::SeqPacket;
        let flags = SockFlag::SOCK_CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::Unix, kind, None, flags)?;
        fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok((ours, theirs))
    };
    make().context("make a socket")
}
