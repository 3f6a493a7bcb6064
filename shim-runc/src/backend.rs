//! The backend: what becomes a container, and what is left of one.

use std::{
    os::fd::{AsFd, OwnedFd},
    sync::{Mutex, MutexGuard},
};

use async_trait::async_trait;
use nix::{
    sys::stat::{SFlag, fstat},
    unistd::{Gid, Uid, fchown},
};
use oci_spec::runtime::Spec;
use shim_core::{
    Backend, Coming, Container, Context, Create, Created, Error, Host, Kind, Process, Result,
    Streams,
    model::{About, Bundle, ContainerId, RuntimeOptions, Sharing},
};

use crate::{
    ahead::{Ahead, Begun, First},
    container::{NativeContainer, Parts},
    engine::{
        cgroup::{Cgroup, Mode},
        files::Given,
        hooks::Hooked,
        launch::{Launched, Launcher},
        oom::OomWatch,
        plan::{self, Asked, Choices, Facts, Hierarchy, Hooks, Inherited, Namespaces, Plan},
        seccomp::Cache,
        stem::{self, Stem},
    },
    external, features,
    ground::{self, Ground},
    options::Options,
    record, spec,
};

/// Makes containers by itself.
#[derive(Debug)]
pub struct NativeBackend {
    /// There from the moment the shim serves.
    ready: Option<Ready>,
    filters: Cache,
    /// The container that the shim was started for, until it is asked for.
    ahead: Mutex<Option<Ahead>>,
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
        Self { ready: None, filters: Cache::default(), ahead: Mutex::default() }
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

    async fn prepare(&self, coming: &Coming) {
        let Some(Ready { launcher, host }) = &self.ready else { return };
        let begun = Ahead::begin(coming, &host.namespace, launcher, &self.filters).await;
        *self.ahead() = begun;
    }

    async fn abandon(&self, id: &ContainerId) {
        if let Some(ahead) = self.begun(id) {
            ahead.dismiss().await;
        }
    }

    async fn create(&self, request: Create) -> Result<Created<Box<dyn Container>>> {
        let options = Options::parse(request.options.as_ref());
        if let Ok(options) = &options
            && let Some(asked) = &options.external
        {
            self.abandon(&request.id).await;
            // In a box of its own: others' creation is not to carry the weight of it.
            return Box::pin(external::create(options, asked, request)).await;
        }
        let ahead = match self.begun(&request.id) {
            Some(ahead) => ahead.fit(&request).await,
            None => None,
        };
        let (spec, begun) = ahead.unzip();
        let (ready, draft) = match self.draft(&request, options, spec) {
            Ok(drafted) => drafted,
            Err(err) => {
                if let Some(begun) = begun {
                    begun.dismiss().await;
                }
                return Err(err);
            }
        };
        let Begun { ground, first } = match begun {
            Some(begun) => begun,
            None => Begun::without_process(&request, &draft.spec, &ready.host)?,
        };
        match draft.make(ready, &request, &ground, first).await {
            Ok(Created { container, init }) => Ok(Created { container: Box::new(container), init }),
            Err(err) => {
                ground.abandon().await;
                Err(err)
            }
        }
    }

    fn clean_up(&self, id: &ContainerId, bundle: &Bundle) -> Result<()> {
        record::clean_up(id, bundle)
    }
}

impl NativeBackend {
    /// Takes what was made ahead for a container.
    fn begun(&self, id: &ContainerId) -> Option<Ahead> {
        self.ahead().take_if(|ahead| ahead.is_of(id))
    }

    fn ahead(&self) -> MutexGuard<'_, Option<Ahead>> {
        self.ahead.lock().expect("nobody panics with it locked")
    }

    fn draft(
        &self,
        request: &Create,
        options: Result<Options>,
        spec: Option<Box<Spec>>,
    ) -> Result<(&Ready, Draft)> {
        let options = options?;
        if request.checkpoint.is_some() {
            return Err(Error::unsupported("restoring a checkpoint"));
        }
        let ready = self.ready.as_ref();
        let ready =
            ready.ok_or_else(|| Error::new(Kind::Unavailable, "the backend is not open"))?;
        Ok((ready, Draft::of(self, ready, request, options, spec)?))
    }
}

/// A container that is planned.
struct Draft {
    plan: Plan,
    options: Options,
    spec: Box<Spec>,
    namespaces: Namespaces,
    inherited: Inherited,
    hooked: Option<Hooked>,
}

impl Draft {
    /// Plans a container, by a spec that may have been read before.
    fn of(
        backend: &NativeBackend,
        ready: &Ready,
        request: &Create,
        options: Options,
        spec: Option<Box<Spec>>,
    ) -> Result<Self> {
        let spec = spec.map_or_else(|| spec::read(&request.bundle), Ok)?;
        plan::check(&spec)?;
        let cgroup = ground::cgroup(&spec, &ready.host.namespace, &request.id)?;
        let filter = spec::filter(&spec, &backend.filters)?;
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
        Ok(Self { plan, options, spec, namespaces, inherited, hooked })
    }

    /// Makes it, with a first process that waits for its plan if there is one.
    async fn make(
        mut self,
        ready: &Ready,
        request: &Create,
        ground: &Ground,
        first: Option<First>,
    ) -> Result<Created<NativeContainer>> {
        // A process that is there was born in its cgroup of v2.
        let unified = ground.unified().filter(|_| first.is_none());
        self.plan.enter_cgroup(ground.cgroup().joined(), unified.is_some())?;
        let uid = self.spec.process().as_ref().map_or(0, |process| process.user().uid());
        let owner = Owner::of(&self.options, self.namespaces.outside(&self.spec, uid));
        let streams = streams(&request.streams, owner)?;
        let given = Given { streams, unified, ..Given::default() };
        let (launched, oom) = self.launch(ready, &given, ground, first).await;
        let launched = match launched {
            Ok(launched) => launched,
            Err(err) => {
                ground.undo();
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
            cgroup: ground.cgroup().clone(),
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

    async fn launch(
        &self,
        ready: &Ready,
        given: &Given<'_>,
        ground: &Ground,
        first: Option<First>,
    ) -> (Result<Launched>, OomWatch) {
        let (plan, hooked) = (&self.plan, self.hooked.as_ref());
        let mut oom = OomWatch::None;
        let born = |pid| {
            oom = OomWatch::of_live(ground.cgroup());
            ground.born(pid)
        };
        let launcher = &ready.launcher;
        let launched = match first {
            Some(First { waiting, tasks }) => {
                launcher.launch_waiting(waiting, plan, given, hooked, tasks, born).await
            }
            None => launcher.launch_and(plan, given, hooked, || ground.tasks(), born).await,
        };
        (launched, oom)
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
