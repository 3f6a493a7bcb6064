//! The backend: what becomes a container, and what is left of one.

use std::os::fd::{AsFd, OwnedFd};

use async_trait::async_trait;
use nix::{
    sys::stat::{SFlag, fstat},
    unistd::{Gid, Uid, fchown},
};
use oci_spec::runtime::Spec;
use shim_core::{
    Backend, Container, Context, Create, Created, Error, Host, Kind, Process, Result, Streams,
    model::{About, Bundle, ContainerId, RuntimeOptions, Sharing},
};

use crate::{
    container::{NativeContainer, Parts},
    engine::{
        cgroup::{Cgroup, CgroupPath, Mode},
        files::Given,
        hooks::Hooked,
        launch::{Launched, Launcher},
        oom::OomWatch,
        plan::{self, Asked, Choices, Facts, Hierarchy, Hooks, Inherited, Namespaces, Plan},
        seccomp::Cache,
        stem::{self, Stem},
    },
    external, features,
    options::Options,
    record::{self, Record},
    spec,
};

/// Makes containers by itself.
#[derive(Debug)]
pub struct NativeBackend {
    /// There from the moment the shim serves.
    ready: Option<Ready>,
    filters: Cache,
}

#[derive(Debug)]
struct Ready {
    launcher: Launcher,
    host: Host,
}

impl NativeBackend {
    /// A backend that makes nothing until it is opened.
    ///
    /// It belongs at the very beginning of `main`: the engine executes the same program once more
    /// as a small process from which all others are cloned, and in that process this call does not
    /// return.
    #[expect(clippy::new_without_default, reason = "a default has no place in `main`")]
    pub fn new() -> Self {
        stem::run_if_asked();
        Self { ready: None, filters: Cache::default() }
    }
}

#[async_trait]
impl Backend for NativeBackend {
    type Container = Box<dyn Container>;

    fn about(&self) -> About {
        About {
            name: "io.containerd.native.v2",
            version: env!("CARGO_PKG_VERSION"),
            features: Some(features::document()),
        }
    }

    fn features(&self, options: &RuntimeOptions) -> Option<String> {
        let parsed = Options::parse(Some(options)).unwrap_or_default();
        match parsed.external {
            Some(asked) => external::features(&asked),
            None => self.about().features,
        }
    }

    fn sharing(&self, options: &RuntimeOptions) -> Result<Option<Sharing>> {
        Options::sharing(options)
    }

    fn shim_cgroup(&self, options: &RuntimeOptions) -> Result<Option<String>> {
        Ok(Options::shim_cgroup(options))
    }

    fn open(&mut self, host: Host) -> Result<()> {
        let stem = Stem::plant(host.reaper.clone())?;
        // Found now, while containerd reads the answer of `start`, and kept.
        tokio::spawn(async { Cgroup::prepare() });
        let launcher = Launcher::new(stem, host.reaper.clone());
        self.ready = Some(Ready { launcher, host });
        Ok(())
    }

    async fn create(&self, request: Create) -> Result<Created<Box<dyn Container>>> {
        let options = Options::parse(request.options.as_ref())?;
        if let Some(asked) = &options.external {
            // In a box of its own: others' creation is not to carry the weight of it.
            return Box::pin(external::create(&options, asked, request)).await;
        }
        if request.checkpoint.is_some() {
            return Err(Error::unsupported("restoring a checkpoint"));
        }
        let Some(ready) = &self.ready else {
            return Err(Error::new(Kind::Unavailable, "the backend is not open"));
        };
        let draft = Draft::of(self, ready, &request, options)?;
        let record = Record::begin(&request.bundle, draft.cgroup.path())?;
        let cgroup = draft.cgroup.clone();
        match draft.make(ready, &request, record).await {
            Ok(Created { container, init }) => Ok(Created { container: Box::new(container), init }),
            Err(err) => {
                // What was refused because it is another's must stay.
                if err.kind() != Kind::FailedPrecondition
                    && let Err(left) = cgroup.remove_async().await
                {
                    log::warn!("remove the cgroup of a container that was not made: {left:#}");
                }
                Record::erase(&request.bundle);
                Err(err)
            }
        }
    }

    fn clean_up(&self, id: &ContainerId, bundle: &Bundle) -> Result<()> {
        record::clean_up(id, bundle)
    }
}

/// A container that is planned, before anything is made.
struct Draft {
    plan: Plan,
    options: Options,
    spec: Spec,
    namespaces: Namespaces,
    inherited: Inherited,
    hooked: Option<Hooked>,
    cgroup: Cgroup,
}

impl Draft {
    fn of(
        backend: &NativeBackend,
        ready: &Ready,
        request: &Create,
        options: Options,
    ) -> Result<Self> {
        let spec = spec::read(&request.bundle)?;
        plan::check(&spec)?;
        let linux = spec.linux().as_ref();
        let path = linux.and_then(|linux| linux.cgroups_path().as_deref());
        let cgroup = Cgroup::at(CgroupPath::of(path, &ready.host.namespace, &request.id)?)?;
        let filter = linux.and_then(|linux| linux.seccomp().as_ref());
        let filter = filter.map(|filter| backend.filters.compile(filter)).transpose()?;
        let namespaces = Namespaces::of(&spec)?;
        // The name that runc gives it.
        let keyring = (!options.no_new_keyring).then(|| format!("_ses.{}", request.id));
        let inherited = Inherited::of(&spec, filter, has_apparmor(), keyring)?;
        let hooked = Hooked::of(&spec, &request.id, &request.bundle)?;
        let no_hooks = Hooks::default();
        let choices = Choices {
            no_pivot_root: options.no_pivot_root,
            terminal: matches!(request.streams, Streams::Terminal),
        };
        let facts = facts(&cgroup, options.no_pivot_root)?;
        let plan = Plan::container(&Asked {
            spec: &spec,
            bundle: &request.bundle,
            namespaces: &namespaces,
            inherited: &inherited,
            hooks: hooked.as_ref().map_or(&no_hooks, |hooked| &hooked.hooks),
            choices,
            facts: &facts,
        })?;
        for warning in &plan.warnings {
            log::warn!("{warning}");
        }
        Ok(Self { plan, options, spec, namespaces, inherited, hooked, cgroup })
    }

    async fn make(
        mut self,
        ready: &Ready,
        request: &Create,
        mut record: Record,
    ) -> Result<Created<NativeContainer>> {
        let resources = spec::resources(&self.spec)?;
        let making = self.cgroup.begin().context("create the cgroup")?;
        record.made()?;
        let limit = || making.limit(resources.as_ref()).context("create the cgroup");
        // On v2 the process is born in its cgroup; a hierarchy of v1 it joins by itself, later.
        let is_born_limited = self.cgroup.mode() == Mode::V2;
        if is_born_limited {
            limit().inspect_err(|_| making.undo())?;
        }
        let unified = self.cgroup.unified().context("open the cgroup")?;
        self.plan.enter_cgroup(self.cgroup.joined(), unified.is_some())?;
        let uid = self.spec.process().as_ref().map_or(0, |process| process.user().uid());
        let owner = Owner::of(&self.options, self.namespaces.outside(&self.spec, uid));
        let streams = streams(&request.streams, owner)?;
        let unified = unified.as_ref().map(AsFd::as_fd);
        let given = Given { streams, unified, ..Given::default() };
        let (plan, hooked) = (&self.plan, self.hooked.as_ref());
        let (cgroup, mut oom) = (&self.cgroup, OomWatch::None);
        let tasks = || {
            if !is_born_limited {
                limit()?;
            }
            cgroup.tasks().context("open the cgroup")
        };
        let born = |pid| {
            oom = OomWatch::of_live(cgroup);
            record.born(pid)
        };
        let launched = ready.launcher.launch_and(plan, &given, hooked, tasks, born).await;
        let launched = match launched {
            Ok(launched) => launched,
            Err(err) => {
                making.undo();
                // Hooks that set something up may have run.
                if let Some(hooked) = &self.hooked {
                    let poststop = &hooked.hooks.poststop;
                    hooked.run_all(&ready.launcher, poststop, "stopped", None).await;
                }
                return Err(err);
            }
        };
        let Launched { pid, pidfd, exit, terminal, gate } = launched;
        let own_pids = self.namespaces.is_new(libc::CLONE_NEWPID);
        let container = NativeContainer::new(Parts {
            launcher: ready.launcher.clone(),
            cgroup: self.cgroup,
            namespaces: self.namespaces,
            inherited: self.inherited,
            hooked: self.hooked,
            owner,
            pid,
            pidfd,
            gate,
            oom,
        });
        let exit = if own_pids { exit } else { container.end_all_after(exit) };
        Ok(Created { container, init: Process { pid, exit, terminal }.into() })
    }
}

/// Who the ends of pipes belong to, so that a program may open them again by `/dev/stdout`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner {
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    /// The client chose the owner, whoever the process is.
    pub(crate) is_chosen: bool,
}

impl Owner {
    fn of(options: &Options, uid: Option<u32>) -> Self {
        let chosen = Self::chosen(options);
        Self { uid: chosen.uid.or(uid), ..chosen }
    }

    /// The one that the client names, if it does.
    pub(crate) fn chosen(options: &Options) -> Self {
        let chosen = |id: u32| (id != 0).then_some(id);
        let is_chosen = options.io_uid != 0;
        Self { uid: chosen(options.io_uid), gid: chosen(options.io_gid), is_chosen }
    }
}

/// Lends the streams of a request, and hands pipes among them to their owner.
pub(crate) fn streams(
    streams: &Streams,
    owner: Owner,
) -> Result<Option<[std::os::fd::BorrowedFd<'_>; 3]>> {
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
        fchown(stream, owner.uid.map(Uid::from_raw), owner.gid.map(Gid::from_raw))?;
    }
    Ok(())
}

/// Whether the host's kernel confines by AppArmor.
fn has_apparmor() -> bool {
    std::fs::read("/sys/module/apparmor/parameters/enabled")
        .is_ok_and(|text| text.starts_with(b"Y"))
}

/// Looks at the host, as far as plans depend on it.
fn facts(cgroup: &Cgroup, no_pivot_root: bool) -> Result<Facts> {
    let is_unified = cgroup.mode() == Mode::V2;
    let mut facts = Facts {
        kcore: std::fs::symlink_metadata("/proc/kcore").is_ok(),
        is_unified,
        ..Facts::default()
    };
    if !is_unified {
        for directory in cgroup.directories() {
            // The unified hierarchy of a hybrid host is not a mount of type cgroup.
            if directory.hierarchy.is_empty() {
                continue;
            }
            let name = directory.mount.file_name().unwrap_or_default();
            facts.hierarchies.push(Hierarchy {
                name: name.to_string_lossy().into_owned(),
                options: directory.hierarchy,
                directory: directory.path,
            });
        }
    }
    if no_pivot_root {
        facts.system_mounts =
            plan::system_mounts(&std::fs::read_to_string("/proc/self/mountinfo")?);
    }
    Ok(facts)
}
