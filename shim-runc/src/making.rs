//! The making of a container: from a spec to an init process that waits for its start.

mod checkpoint;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::{
    errno::Errno,
    sys::stat::{SFlag, fstat},
    unistd::{Gid, Uid, fchown},
};
use oci_spec::runtime::Spec;
use shim_core::{
    Context, Process, Result, Streams,
    model::{Bundle, Pid},
};

pub(crate) use self::checkpoint::Restored;
use crate::{
    ahead::{Begun, First},
    container::{NativeContainer, Parts},
    engine::{
        agent::Agent,
        cgroup::{Cgroup, Mode, Place},
        criu::Criu,
        doors::Doors,
        files::Given,
        hooks::Hooked,
        launch::{Launched, Launcher},
        oom::OomWatch,
        plan::{
            self, Asked, Choices, Facts, Hierarchy, Hooks, Inherited, Modules, Namespaces, Plan,
            Starter,
        },
        resctrl::Group,
        seccomp::Cache,
        talk::Rest,
    },
    ground::{Ground, Keeper},
    options::Options,
    rootless, spec,
};

/// The annotation that runc's callers name a file of settings for CRIU by.
pub(crate) const CRIU_CONFIG: &str = "org.criu.config";
/// What is asked for.
pub(crate) struct Wanted<'a> {
    /// The container's id.
    pub(crate) id: &'a str,
    /// What paths of the spec are relative to.
    pub(crate) bundle: &'a Bundle,
    pub(crate) spec: Box<Spec>,
    pub(crate) cgroup: Place,
    pub(crate) choices: Choices,
    /// Its processes get a session keyring of their own.
    pub(crate) has_keyring: bool,
    /// Who the ends of pipes belong to; the process's user where nothing is chosen.
    pub(crate) owner: Owner,
    /// What saves and restores its processes.
    pub(crate) criu: Criu,
}

/// What a container was made from, for a draft like the first one.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    id: Box<str>,
    bundle: Bundle,
    criu: Criu,
}

impl Origin {
    pub(crate) fn new(id: &str, bundle: &Bundle, criu: Criu) -> Self {
        Self { id: id.into(), bundle: bundle.clone(), criu }
    }

    /// Where its spec is.
    pub(crate) fn bundle(&self) -> &Bundle {
        &self.bundle
    }
}

/// What the init process gets from its maker.
#[derive(Clone, Copy)]
pub(crate) struct Making<'a> {
    pub(crate) streams: &'a Streams,
    /// For a start by another process.
    pub(crate) doors: Option<&'a Doors>,
    /// Where its hooks print.
    pub(crate) output: Option<BorrowedFd<'a>>,
}

/// A container that has been made.
pub(crate) struct Made {
    pub(crate) container: NativeContainer,
    pub(crate) init: Process,
    /// What is left to do, for a start by another process.
    pub(crate) rest: Option<Rest>,
}

/// A container that is planned, before anything is made.
pub(crate) struct Draft {
    plan: Plan,
    choices: Choices,
    owner: Owner,
    spec: Box<Spec>,
    namespaces: Namespaces,
    inherited: Inherited,
    hooked: Option<Hooked>,
    cgroup: Cgroup,
    origin: Origin,
}

impl Draft {
    /// Plans a container. Boxed: it goes through several futures, each of which would have room for it.
    ///
    /// # Errors
    /// What makes no sense, or is not offered.
    pub(crate) fn of(wanted: Wanted<'_>, filters: &Cache) -> Result<Box<Self>> {
        let Wanted { id, bundle, spec, cgroup, choices, has_keyring, owner, criu } = wanted;
        plan::check(&spec)?;
        let cgroup = Cgroup::at(cgroup)?;
        let (namespaces, inherited) = shared(&spec, id, bundle, has_keyring, filters)?;
        let hooked = Hooked::of(&spec, id, bundle)?;
        let no_hooks = Hooks::default();
        let facts = facts(&cgroup, choices.no_pivot_root)?;
        let plan = Plan::container(&Asked {
            spec: &spec,
            bundle,
            namespaces: &namespaces,
            inherited: &inherited,
            hooks: hooked.as_ref().map_or(&no_hooks, |hooked| &hooked.hooks),
            choices,
            facts: &facts,
        })?;
        for warning in &plan.warnings {
            // As with runc, whose callers read its log for errors: nothing to warn of by itself.
            log::info!("{warning}");
        }
        let uid = spec.process().as_ref().map_or(0, |process| process.user().uid());
        let uid = owner.uid.or(namespaces.outside(&spec, uid));
        let owner = Owner { uid, ..owner };
        let origin = Origin::new(id, bundle, criu);
        Ok(Box::new(Self {
            plan,
            choices,
            owner,
            spec,
            namespaces,
            inherited,
            hooked,
            cgroup,
            origin,
        }))
    }

    /// Lays the ground for the container, with a record of it in a directory.
    ///
    /// # Errors
    /// `FailedPrecondition` when its cgroup is somebody else's.
    pub(crate) async fn begin(&self, directory: &Bundle, launcher: &Launcher) -> Result<Begun> {
        let (cgroup, group) = (self.cgroup.clone(), self.inherited.group.clone());
        let (ground, keeper) = Ground::lay(directory, cgroup, group, &self.spec, launcher).await?;
        Ok(Begun { ground, keeper, first: None })
    }

    /// Makes the container on its ground, of the first process that waits there if there is one.
    ///
    /// # Errors
    /// What went wrong; nothing is left, the ground neither.
    pub(crate) async fn make(
        self: Box<Self>,
        begun: Begun,
        launcher: &Launcher,
        making: Making<'_>,
        born: impl FnOnce(Pid) -> Result<()>,
    ) -> Result<Made> {
        let Begun { ground, keeper, first } = begun;
        match self.make_on(&ground, (keeper, first), launcher, making, born).await {
            Ok(made) => Ok(made),
            Err(err) => {
                ground.abandon().await;
                Err(err)
            }
        }
    }

    async fn make_on(
        mut self: Box<Self>,
        ground: &Ground,
        (keeper, first): (Option<Keeper>, Option<First>),
        launcher: &Launcher,
        making: Making<'_>,
        told: impl FnOnce(Pid) -> Result<()>,
    ) -> Result<Made> {
        // A process that is there was born in its cgroup of v2.
        let unified = ground.unified().filter(|_| first.is_none());
        self.plan.enter_cgroup(self.cgroup.joined(), unified.is_some())?;
        let streams = streams(making.streams, self.owner)?;
        let Making { doors, output, .. } = making;
        let given = Given { streams, unified, doors, output, ..Given::default() };
        let (plan, hooked) = (&self.plan, self.hooked.as_ref());
        let mut oom = OomWatch::None;
        let born = |pid| {
            oom = OomWatch::of_live(ground.cgroup());
            ground.born(pid)?;
            if let Some((hooked, doors)) = hooked.zip(doors) {
                hooked.write_state(&doors.state, "created", Some(pid))?;
            }
            told(pid)
        };
        let launched = match first {
            Some(First { waiting, tasks }) => {
                launcher.launch_waiting(waiting, plan, &given, hooked, tasks, born).await
            }
            None => launcher.launch_and(plan, &given, hooked, || ground.tasks(), born).await,
        };
        match released(keeper, ground, launched).await {
            Ok(launched) => Ok(self.stand(launcher, launched, oom)),
            Err(err) => {
                ground.undo();
                self.after_failure(launcher).await;
                Err(err)
            }
        }
    }

    /// Hooks that set something up may have run.
    async fn after_failure(&self, launcher: &Launcher) {
        if let Some(hooked) = &self.hooked {
            let poststop = &hooked.hooks.poststop;
            hooked.run_all(launcher, poststop, "stopped", None).await;
        }
    }

    /// Takes what stands now together.
    fn stand(self: Box<Self>, launcher: &Launcher, launched: Launched, oom: OomWatch) -> Made {
        let Launched { pid, pidfd, exit, terminal, gate } = launched;
        let rest = (self.choices.starter == Starter::Other).then(|| Rest::of(&self.plan));
        let Self { cgroup, namespaces, inherited, hooked, owner, origin, .. } = *self;
        let own_pids = namespaces.is_new(libc::CLONE_NEWPID);
        let container = NativeContainer::new(Parts {
            launcher: launcher.clone(),
            cgroup,
            namespaces,
            inherited,
            hooked,
            owner,
            pid,
            pidfd,
            gate,
            oom,
            origin,
        });
        let exit = if own_pids { exit } else { container.end_all_after(exit) };
        Made { container, init: Process { pid, exit, terminal: terminal.map(Into::into) }, rest }
    }
}

/// Lets a keeper go, if there is one. What is left is the outcome.
async fn released(
    keeper: Option<Keeper>,
    ground: &Ground,
    launched: Result<Launched>,
) -> Result<Launched> {
    let Some(keeper) = keeper else { return launched };
    let released = keeper.release(ground).await;
    let launched = launched?;
    match released {
        Ok(()) => Ok(launched),
        Err(err) => {
            launched.end().await;
            Err(err)
        }
    }
}

/// Reads what all processes of a container have in common, the added ones too.
///
/// # Errors
/// What makes no sense, or is not offered.
pub(crate) fn shared(
    spec: &Spec,
    id: &str,
    bundle: &Bundle,
    has_keyring: bool,
    filters: &Cache,
) -> Result<(Namespaces, Inherited)> {
    let filter = spec::filter(spec, filters)?;
    let namespaces = Namespaces::of(spec)?;
    // The name that runc gives it.
    let keyring = has_keyring.then(|| format!("_ses.{id}"));
    let agent = Agent::of(spec, id, bundle)?;
    let group = Group::of(spec, id)?;
    let inherited = Inherited::of(spec, filter, agent, group, modules(), keyring)?;
    Ok((namespaces, inherited))
}

/// Who the ends of pipes belong to, so that a program may open them again by `/dev/stdout`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Owner {
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    /// The client chose the owner, whoever the process is.
    pub(crate) is_chosen: bool,
}

impl Owner {
    /// The one that a client names, if it does.
    pub(crate) fn chosen(options: &Options) -> Self {
        let chosen = |id: u32| (id != 0).then_some(id);
        let is_chosen = options.io_uid != 0;
        Self { uid: chosen(options.io_uid), gid: chosen(options.io_gid), is_chosen }
    }
}

/// Lends the streams of a request, and hands pipes among them to their owner.
pub(crate) fn streams(streams: &Streams, owner: Owner) -> Result<Option<[BorrowedFd<'_>; 3]>> {
    let Streams::Pipes { stdin, stdout, stderr } = streams else { return Ok(None) };
    for pipe in [stdin, stdout, stderr] {
        hand_over(pipe, owner).context("change the owner of a stream")?;
    }
    Ok(Some([stdin.as_fd(), stdout.as_fd(), stderr.as_fd()]))
}

fn hand_over(stream: &OwnedFd, owner: Owner) -> Result<()> {
    let kind = SFlag::from_bits_truncate(fstat(stream)?.st_mode) & SFlag::S_IFMT;
    // Logs and devices of the host keep their owner.
    if kind == SFlag::S_IFIFO {
        match fchown(stream, owner.uid.map(Uid::from_raw), owner.gid.map(Gid::from_raw)) {
            // It is somebody's who is not in our user namespace, and stays so.
            Err(Errno::EPERM | Errno::EINVAL) if rootless::is_rootless() => {}
            handed => handed?,
        }
    }
    Ok(())
}

/// By what the host's kernel confines.
fn modules() -> Modules {
    let enabled = std::fs::read("/sys/module/apparmor/parameters/enabled");
    Modules {
        has_apparmor: enabled.is_ok_and(|text| text.starts_with(b"Y")),
        has_selinux: std::path::Path::new("/sys/fs/selinux/enforce").exists(),
    }
}

/// Looks at the host, as far as plans depend on it.
fn facts(cgroup: &Cgroup, no_pivot_root: bool) -> Result<Facts> {
    let is_unified = cgroup.mode() == Mode::V2;
    let mut facts = Facts {
        kcore: std::fs::symlink_metadata("/proc/kcore").is_ok(),
        has_no_nodes: rootless::is_mapped(),
        is_unified,
        ..Facts::default()
    };
    for directory in cgroup.directories() {
        // The unified hierarchy of a hybrid host is not a mount of type cgroup.
        if !is_unified && directory.hierarchy.is_empty() {
            continue;
        }
        let name = directory.mount.file_name().unwrap_or_default();
        facts.hierarchies.push(Hierarchy {
            name: name.to_string_lossy().into_owned(),
            options: directory.hierarchy,
            directory: directory.path,
        });
    }
    if no_pivot_root {
        facts.system_mounts =
            plan::system_mounts(&std::fs::read_to_string("/proc/self/mountinfo")?);
    }
    Ok(facts)
}
