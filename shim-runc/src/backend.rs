//! The backend: what becomes a container, and what is left of one.

use std::{
    path::PathBuf,
    sync::{Mutex, MutexGuard},
};

use async_trait::async_trait;
use oci_spec::runtime::Spec;
use shim_core::{
    Backend, Coming, Container, Create, Created, Error, Host, Init, Kind, Result, Streams,
    model::{About, Bundle, ContainerId, Namespace, RuntimeOptions, Sharing},
};

use crate::{
    ahead::Ahead,
    engine::{
        cgroup::{Cgroup, Place},
        criu::Criu,
        launch::Launcher,
        plan::Choices,
        seccomp::Cache,
        stem::{self, Stem},
    },
    external, features,
    making::{Draft, Making, Owner, Wanted},
    options::Options,
    record,
    saved::{Saved, SavedContainer},
    spec,
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
        if let Ok(options) = &options
            && let Some(image) = request.checkpoint.clone().or(options.criu_image_path.clone())
        {
            self.abandon(&request.id).await;
            return self.saved(request, options, image);
        }
        let ahead = match self.begun(&request.id) {
            Some(ahead) => {
                let driver = options.as_ref().map(|options| options.driver).unwrap_or_default();
                ahead.fit(&request, driver).await
            }
            None => None,
        };
        let (spec, begun) = ahead.unzip();
        let drafted = options.and_then(|options| self.draft(&request, &options, spec));
        let (ready, draft) = match drafted {
            Ok(drafted) => drafted,
            Err(err) => {
                if let Some(begun) = begun {
                    begun.dismiss().await;
                }
                return Err(err);
            }
        };
        let begun = match begun {
            Some(begun) => begun,
            None => draft.begin(&request.bundle, &ready.launcher).await?,
        };
        let making = Making { streams: &request.streams, doors: None, output: None };
        let made = draft.make(begun, &ready.launcher, making, |_| Ok(())).await?;
        Ok(Created { container: Box::new(made.container), init: made.init.into() })
    }

    fn clean_up(&self, _: &Namespace, id: &ContainerId, bundle: &Bundle) -> Result<()> {
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

    /// Plans a container that is restored when it is started.
    fn saved(
        &self,
        request: Create,
        options: &Options,
        image: PathBuf,
    ) -> Result<Created<Box<dyn Container>>> {
        let (ready, draft) = self.draft(&request, options, None)?;
        let saved = Saved {
            draft,
            launcher: ready.launcher.clone(),
            bundle: request.bundle,
            streams: request.streams,
            image,
            work: options.criu_work_path.clone(),
        };
        Ok(Created { container: Box::new(SavedContainer::new(saved)), init: Init::AtStart })
    }

    /// Plans a container, by a spec that may have been read before.
    fn draft(
        &self,
        request: &Create,
        options: &Options,
        spec: Option<Box<Spec>>,
    ) -> Result<(&Ready, Box<Draft>)> {
        let ready = self.ready.as_ref();
        let ready =
            ready.ok_or_else(|| Error::new(Kind::Unavailable, "the backend is not open"))?;
        let spec = spec.map_or_else(|| spec::read(&request.bundle), Ok)?;
        let id = request.id.as_str();
        let above = ready.host.namespace.as_str();
        let cgroup = Place::of(options.driver, spec::cgroup(&spec), above, id)?;
        let wanted = Wanted {
            id,
            bundle: &request.bundle,
            spec,
            cgroup,
            choices: Choices {
                no_pivot_root: options.no_pivot_root,
                terminal: matches!(request.streams, Streams::Terminal),
                ..Choices::default()
            },
            has_keyring: !options.no_new_keyring,
            owner: Owner::chosen(options),
            criu: Criu::of(&options.criu_path),
        };
        Ok((ready, Draft::of(wanted, &self.filters)?))
    }
}
