//! The backend: what becomes a container, and what is left of one.

use async_trait::async_trait;
use shim_core::{
    Backend, Create, Created, Error, Host, Kind, Result, Streams,
    model::{About, Bundle, ContainerId, RuntimeOptions, Sharing},
};

use crate::{
    container::NativeContainer,
    engine::{
        cgroup::{Cgroup, CgroupPath},
        launch::Launcher,
        plan::Choices,
        seccomp::Cache,
        stem::{self, Stem},
    },
    features,
    making::{Draft, Making, Owner, Wanted},
    options::Options,
    record, spec,
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
    type Container = NativeContainer;

    fn about(&self) -> About {
        About {
            name: "io.containerd.native.v2",
            version: env!("CARGO_PKG_VERSION"),
            features: Some(features::document()),
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

    async fn create(&self, request: Create) -> Result<Created<NativeContainer>> {
        if request.checkpoint.is_some() {
            return Err(Error::unsupported("restoring a checkpoint"));
        }
        let Some(ready) = &self.ready else {
            return Err(Error::new(Kind::Unavailable, "the backend is not open"));
        };
        let options = Options::parse(request.options.as_ref())?;
        let spec = spec::read(&request.bundle)?;
        let cgroup = spec::cgroup(&spec);
        let cgroup = CgroupPath::of(cgroup, &ready.host.namespace, &request.id)?;
        let chosen = |id: u32| (id != 0).then_some(id);
        let wanted = Wanted {
            id: request.id.as_str(),
            bundle: &request.bundle,
            spec,
            cgroup,
            choices: Choices {
                no_pivot_root: options.no_pivot_root,
                terminal: matches!(request.streams, Streams::Terminal),
                ..Choices::default()
            },
            has_keyring: !options.no_new_keyring,
            owner: Owner {
                uid: chosen(options.io_uid),
                gid: chosen(options.io_gid),
                is_chosen: options.io_uid != 0,
            },
        };
        let draft = Draft::of(wanted, &self.filters)?;
        let given = Making { streams: &request.streams, doors: None, output: None };
        let made = draft.make_in(&request.bundle, &ready.launcher, given, |_| Ok(())).await?;
        Ok(Created { container: made.container, init: made.init.into() })
    }

    fn clean_up(&self, _id: &ContainerId, bundle: &Bundle) -> Result<()> {
        record::clean_up(bundle)
    }
}
