//! The executor: runs a plan in a fresh child of the stem, and becomes the container's program.
//!
//! The one rule: nothing here allocates, locks, logs or panics. The child is a copy of a process
//! that may be in any state, its memory is charged to the container, and its only way to say
//! something is a [`Report`].

mod confine;
mod copy_up;
mod hooks;
mod mounts;
mod nodes;
mod privileges;
mod program;
mod root;
mod settings;
mod streams;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use super::{
    plan::place,
    report::{Failure, Report},
    step::{Order, Part},
    sys::{self, Files},
    wire::{Reader, Slot},
};

pub(crate) use privileges::GROUPS;
pub(crate) use settings::MASK_WORDS;

/// The child's end of its socket, among the files of its request.
pub(crate) const SOCKET: Slot = Slot(1);

/// Why a step failed.
#[derive(Clone, Copy, Debug)]
struct Fault {
    part: Part,
    /// An error's number, or for a hook what it ended with.
    number: i32,
}

type Done<T = ()> = Result<T, Fault>;

/// Says which part of a step a system call was.
trait In<T> {
    fn part(self, part: Part) -> Done<T>;
}

impl<T> In<T> for sys::Result<T> {
    fn part(self, part: Part) -> Done<T> {
        self.map_err(|errno| Fault { part, number: errno as i32 })
    }
}

impl From<Errno> for Fault {
    fn from(errno: Errno) -> Self {
        Self { part: Part::Whole, number: errno as i32 }
    }
}

/// What one step leaves for a later one.
struct Executor<'plan> {
    files: &'plan Files,
    /// Whoever hears the reports.
    listener: Slot,
    /// The `tasks` files of the cgroup, until they were written to.
    tasks: Files,
    /// The container's `/`, from `AttachRoot` on.
    root: Option<OwnedFd>,
    /// The host's procfs or one of our own, for kernel parameters.
    proc: Option<OwnedFd>,
    /// The directory that the last node was made in, and its path.
    directory: Option<(&'plan [u8], OwnedFd)>,
    /// An empty read-only directory that is mounted already, for more masks like it.
    empty: Option<OwnedFd>,
    /// The host's `/dev/null` is mounted somewhere already.
    null_placed: bool,
    /// The working directory could not be entered before the change of ids.
    must_enter: bool,
    /// The container's state, for hooks.
    state: Option<OwnedFd>,
    home: program::Home,
    program: Option<&'plan std::ffi::CStr>,
}

/// Runs a plan to its end, which is another program or this process's exit.
pub(crate) fn run(plan: &'static [u8], files: &Files) -> ! {
    let mut executor = Executor {
        files,
        listener: SOCKET,
        tasks: Files::new(),
        root: None,
        proc: None,
        directory: None,
        empty: None,
        null_placed: false,
        must_enter: false,
        state: None,
        home: program::Home::new(),
        program: None,
    };
    let mut reader = Reader::new(plan);
    let mut step = 0;
    let fault = loop {
        let Ok(order) = Order::read(&mut reader) else {
            break Fault { part: Part::Plan, number: Errno::EBADMSG as i32 };
        };
        if !matches!(order, Order::MakeDevice { .. } | Order::Link { .. }) {
            // A mount may have covered it.
            executor.directory = None;
        }
        if let Err(fault) = executor.obey(order) {
            break fault;
        }
        step += 1;
    };
    let failure = Failure { step, part: fault.part, number: fault.number };
    // A shim that is gone learns nothing; the exit code is for nobody else.
    let _ = executor.report(Report::Failed(failure));
    sys::exit(1)
}

impl<'plan> Executor<'plan> {
    #[expect(clippy::too_many_lines, reason = "one line an order")]
    fn obey(&mut self, order: Order<'plan>) -> Done {
        match order {
            Order::AwaitCgroup {} => self.take_cgroup(),
            Order::JoinCgroup { tasks } => Ok(sys::write_whole(self.tasks.get(tasks.0)?, b"0")?),
            Order::StartSession {} => Ok(nix::unistd::setsid().map(drop)?),
            Order::AwaitSettings {} => self.ask(Report::Settings),
            Order::BecomeRoot {} => become_root(),
            Order::JoinNamespace { namespace, kind }
            | Order::JoinContainer { pidfd: namespace, kinds: kind } => {
                Ok(sys::join_namespace(self.file(namespace)?, int(kind)?)?)
            }
            Order::NewCgroupNamespace {} => Ok(sys::new_namespaces(libc::CLONE_NEWCGROUP)?),
            Order::JoinKeyring { name } => settings::join_keyring(name),
            Order::RaiseLoopback {} => Ok(sys::raise_loopback()?),
            Order::SetHostname { name } => Ok(sys::set_hostname(name)?),
            Order::SetDomainname { name } => Ok(sys::set_domainname(name)?),
            Order::SetSysctl { file, value } => self.set_sysctl(file, value),
            Order::Propagate { flags } => mounts::propagate(flags),
            Order::AttachRoot { tree } => self.attach_root(tree),
            Order::Mount { kind, target, options, attributes, propagation, place } => {
                let target = self.target(target, root::Kind::Directory, place)?;
                let mount = mounts::make(kind, options, attributes)?;
                if place & place::COPY_UP != 0 {
                    copy_up::copy(target.as_fd(), mount.as_fd())?;
                }
                mounts::put(&mount, &target, propagation)
            }
            Order::MountWhole { kind, source, target, flags, options, propagation, place } => {
                let target = self.target(target, root::Kind::Directory, place)?;
                mounts::mount_whole(kind, source, &target, flags, options, propagation)
            }
            Order::Bind { tree, target, propagation, place } => {
                self.bind(tree, target, propagation, place)
            }
            Order::Remount { target, options, set, clear } => {
                self.remount(target, options, set, clear)
            }
            Order::MakeDirectory { path } => {
                root::make(self.root()?, path, root::Kind::Directory).map(drop)
            }
            Order::MakeDevice { path, kind, number, mode, uid, gid } => {
                self.make_device(path, &nodes::Device { kind, number, mode, uid, gid })
            }
            Order::BindDevice { tree, path } => self.bind_device(tree, path),
            Order::Link { path, target, replace } => self.link(path, target, replace != 0),
            Order::Mask { path, null } => self.mask(path, null),
            Order::Protect { path } => self.protect(path),
            Order::Seal { path } => self.seal(path),
            Order::PivotRoot {} => self.pivot_root(),
            Order::Hide { path } => mounts::hide(path),
            Order::ChangeRoot {} => self.change_root(),
            Order::PropagateRoot { flags } => mounts::propagate(flags),
            Order::SealRoot {} => mounts::seal(self.root()?),
            Order::OpenTerminal { uid, height, width, console } => {
                self.open_terminal(uid, height, width, console != 0)
            }
            Order::PlaceStreams { stdin, stdout, stderr } => {
                self.place_streams(stdin, stdout, stderr)
            }
            Order::SetLimit { resource, soft, hard } => {
                Ok(sys::set_limit(0, word(resource)?, soft, hard)?)
            }
            Order::Schedule { policy, flags, nice, priority, runtime, deadline, period } => {
                let nice = int(nice)?;
                let (policy, priority) = (word(policy)?, word(priority)?);
                settings::schedule(policy, flags, nice, priority, [runtime, deadline, period])
            }
            Order::SetIoPriority { priority } => Ok(sys::set_io_priority(word(priority)?)?),
            Order::SetAffinity { mask } => settings::with_mask(mask, sys::set_affinity),
            Order::SetMemoryPolicy { mode, nodes } => {
                let mode = word(mode)?;
                settings::with_mask(nodes, |nodes| sys::set_memory_policy(mode, nodes))
            }
            Order::SetPersonality { domain } => Ok(sys::set_personality(domain)?),
            Order::SetUmask { mask } => settings::set_umask(mask),
            Order::ForbidNewPrivileges {} => Ok(nix::sys::prctl::set_no_new_privs()?),
            Order::FilterCalls { program, flags } => self.filter_calls(program, word(flags)?),
            Order::BoundCapabilities { bounding } => privileges::bound(bounding),
            Order::FindHome { uid } => self.find_home(uid),
            Order::Enter { path } => self.enter(path),
            Order::SetIds { uid, gid, groups } => privileges::set_ids(uid, gid, groups),
            Order::EnterAgain { path } => self.enter_again(path),
            Order::SetCapabilities { effective, permitted, inheritable, ambient } => {
                let sets = sys::Capabilities { effective, permitted, inheritable };
                privileges::set(sets, ambient)
            }
            Order::CloseFiles { from } => Ok(sys::close_on_exec_from(word(from)?)?),
            Order::FindProgram { name, candidates } => self.find_program(name, candidates),
            Order::AwaitHooks {} => self.ask_for_state(Report::RunHooks),
            Order::AwaitStart { with_state: 0 } => self.ask(Report::Ready),
            Order::AwaitStart { .. } => self.ask_for_state(Report::Ready),
            Order::AwaitStarter { go, answer, state } => self.await_starter(go, answer, state),
            Order::RunHook { path, arguments, environment, seconds, output } => {
                self.run_hook(hooks::Hook { path, arguments, environment, seconds, output })
            }
            Order::ApplyProfile { profile } => confine::apply_profile(profile),
            Order::ApplyLabel { label } => confine::apply_label(label),
            Order::Execute { arguments, environment } => self.execute(arguments, environment),
        }
    }

    fn file(&self, slot: Slot) -> Done<BorrowedFd<'plan>> {
        Ok(self.files.get(slot.0)?)
    }

    fn root(&self) -> Done<BorrowedFd<'_>> {
        self.root
            .as_ref()
            .map(AsFd::as_fd)
            .ok_or(Fault { part: Part::Plan, number: Errno::EBADF as i32 })
    }

    fn take_cgroup(&mut self) -> Done {
        match sys::receive(self.file(SOCKET)?, &mut [0], &mut self.tasks).part(Part::Report)? {
            0 => sys::exit(1),
            _ => Ok(()),
        }
    }

    fn filter_calls(&self, program: &[u8], flags: u32) -> Done {
        match sys::filter_calls(program, flags)? {
            // Whoever gets it answers for the calls of this process from now on.
            Some(listener) => self.ask(Report::Listener(listener.as_raw_fd())),
            None => Ok(()),
        }
    }

    fn report(&self, report: Report) -> Done {
        // write(2) and not sendmsg(2): a seccomp filter may be in force already.
        sys::write_whole(self.file(self.listener)?, &report.bytes()).part(Part::Report)
    }

    /// The same, and the go comes with the container's state.
    fn ask_for_state(&mut self, report: Report) -> Done {
        self.report(report)?;
        let mut files = Files::new();
        match sys::receive(self.file(SOCKET)?, &mut [0], &mut files).part(Part::Report)? {
            0 => sys::exit(1),
            _ => {
                self.state = files.take();
                Ok(())
            }
        }
    }

    /// Tells the maker, who may end then, that all is done; and waits for whoever starts it.
    fn await_starter(&mut self, go: Slot, answer: Slot, state: Option<Slot>) -> Done {
        if let Some(state) = state {
            self.state = Some(sys::lift(self.file(state)?)?);
        }
        self.report(Report::Ready)?;
        self.listener = answer;
        // It never ends without a byte: this process has the pipe open for writing, too.
        sys::read(self.file(go)?, &mut [0]).map(drop).part(Part::Report)
    }

    /// Tells the shim something and waits for its go.
    fn ask(&self, report: Report) -> Done {
        self.report(report)?;
        let mut go = [0];
        match sys::read(self.file(SOCKET)?, &mut go).part(Part::Report)? {
            // The shim is gone, and with it everybody who could start this container.
            0 => sys::exit(1),
            _ => Ok(()),
        }
    }
}

fn become_root() -> Done {
    match sys::set_groups(&[]) {
        // A user namespace that denies setgroups(2) has no groups to drop either.
        Ok(()) | Err(Errno::EPERM) => {}
        Err(errno) => return Err(Fault { part: Part::Groups, number: errno as i32 }),
    }
    sys::set_group(0).part(Part::Group)?;
    sys::set_user(0).part(Part::User)
}

/// Takes a number of the plan as the kernel's int: its low 32 bits, sign and all.
fn int(number: u64) -> Done<i32> {
    i32::try_from(number.cast_signed())
        .map_err(|_| Fault { part: Part::Plan, number: Errno::ERANGE as i32 })
}

/// Takes a number of the plan as one of 32 bits.
fn word(number: u64) -> Done<u32> {
    u32::try_from(number).map_err(|_| Fault { part: Part::Plan, number: Errno::ERANGE as i32 })
}
