//! What is made of a container before it is asked for: the ground that it stands on, and a first
//! process in its namespaces that waits for a plan. containerd has written the spec when it starts the
//! shim, and takes a while to ask.

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    os::fd::OwnedFd,
};

use oci_spec::runtime::Spec;
use shim_core::{
    Coming, Create, Result,
    model::{Bundle, ContainerId, Namespace},
};

use crate::{
    engine::{
        cgroup::{Cgroup, Driver, Place},
        launch::{Launcher, Waiting},
        plan::{self, Namespaces},
        resctrl::Group,
        seccomp::Cache,
    },
    ground::{Ground, Keeper},
    options::Options,
    record::Record,
    spec,
};

/// A container that is begun.
pub(crate) struct Ahead {
    id: ContainerId,
    bundle: Bundle,
    driver: Driver,
    text: Print,
    spec: Box<Spec>,
    begun: Begun,
}

/// What the text of a spec was, as far as a hash tells; the text itself would leave a hole in memory.
struct Print {
    key: RandomState,
    hash: u64,
}

/// What there is of a container on the host.
pub(crate) struct Begun {
    pub(crate) ground: Ground,
    pub(crate) keeper: Option<Keeper>,
    pub(crate) first: Option<First>,
}

/// Its first process. Dropped, it ends.
pub(crate) struct First {
    pub(crate) waiting: Waiting,
    /// The files by which it joins its cgroup of v1.
    pub(crate) tasks: Vec<OwnedFd>,
}

impl Ahead {
    /// Begins a container. None where something is wrong: the request meets it again, and is told.
    pub(crate) async fn begin(
        coming: &Coming,
        namespace: &Namespace,
        launcher: &Launcher,
        filters: &Cache,
    ) -> Option<Self> {
        let Coming { id, bundle, options } = coming;
        let driver = driver(&Options::parse_all(options).ok()?)?;
        // A record says that the container is there, whoever made it.
        if Record::is_there(bundle) {
            return None;
        }
        launcher.warm_up().await;
        let text = spec::text(bundle).ok()?;
        let print = Print::of(&text);
        let (spec, namespaces, cgroup) =
            plan_ahead(coming, text, (driver, namespace), filters).ok()?;
        let group = Group::of(&spec, id.as_str()).ok()?;
        let (ground, keeper) = Ground::lay(bundle, cgroup, group, &spec, launcher).await.ok()?;
        let first = match namespaces.alone() {
            Some(flags) => First::make(&ground, launcher, flags).await.ok(),
            None => None,
        };
        let begun = Begun { ground, keeper, first };
        Some(Self { id: id.clone(), bundle: bundle.clone(), driver, text: print, spec, begun })
    }

    /// Whether it was begun for this container.
    pub(crate) fn is_of(&self, id: &ContainerId) -> bool {
        self.id == *id
    }

    /// Takes what a request can use; what is of no use to it is removed.
    pub(crate) async fn fit(self, request: &Create, driver: Driver) -> Option<(Box<Spec>, Begun)> {
        let fits = self.bundle == request.bundle
            && self.driver == driver
            && spec::text(&request.bundle).is_ok_and(|text| self.text.is_of(&text));
        if fits {
            return Some((self.spec, self.begun));
        }
        self.dismiss().await;
        None
    }

    /// Removes it.
    pub(crate) async fn dismiss(self) {
        self.begun.dismiss().await;
    }
}

impl fmt::Debug for Ahead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ahead").field(&self.id).finish()
    }
}

/// Who is to make the cgroup, if it is us who make the container.
fn driver(options: &[Options]) -> Option<Driver> {
    let mut all = options.iter().map(|options| (options.external.is_none(), options.driver));
    let (is_ours, driver) = all.next().unwrap_or((true, Driver::default()));
    (is_ours && all.all(|other| other == (true, driver))).then_some(driver)
}

/// What is cheap to do over, and may fail: all but the cgroup, which may not be left behind.
fn plan_ahead(
    coming: &Coming,
    text: Vec<u8>,
    (driver, namespace): (Driver, &Namespace),
    filters: &Cache,
) -> Result<(Box<Spec>, Namespaces, Cgroup)> {
    let Coming { id, bundle, .. } = coming;
    let spec = spec::parse(bundle, &text)?;
    drop(text);
    plan::check(&spec)?;
    let namespaces = Namespaces::of(&spec)?;
    spec::filter(&spec, filters)?;
    let place = Place::of(driver, spec::cgroup(&spec), namespace.as_str(), id.as_str())?;
    Ok((spec, namespaces, Cgroup::at(place)?))
}

impl Print {
    fn of(text: &[u8]) -> Self {
        let key = RandomState::new();
        let hash = key.hash_one(text);
        Self { key, hash }
    }

    fn is_of(&self, text: &[u8]) -> bool {
        self.key.hash_one(text) == self.hash
    }
}

impl Begun {
    /// Removes it.
    pub(crate) async fn dismiss(self) {
        if let Some(first) = self.first {
            first.waiting.dismiss().await;
        }
        if let Some(keeper) = self.keeper {
            keeper.dismiss().await;
        }
        self.ground.abandon().await;
    }
}

impl First {
    async fn make(ground: &Ground, launcher: &Launcher, flags: u64) -> Result<Self> {
        let mut tasks = Ok(Vec::new());
        let waiting = launcher.ahead(flags, ground.unified(), || tasks = ground.tasks()).await?;
        Ok(Self { waiting, tasks: tasks? })
    }
}
