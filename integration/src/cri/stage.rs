//! What a test of pods has to work with: a lane, a daemon, and the runtime of its pods.

use anyhow::{Context, Result};

use super::client::Cri;
use super::config::Runtime;
use super::container::Draft;
use super::pod::{self, Pod};
use crate::daemon::Daemon;
use crate::folder::Folder;
use crate::lane::Lane;
use crate::messages::cri as m;
use crate::runner::Skip;

/// Pods of one runtime.
#[derive(Debug)]
pub struct Stage<'a> {
    lane: &'a Lane,
    runtime: Runtime,
    cri: Cri,
    /// The daemon where the lane's will not do.
    own: Option<Daemon>,
}

impl<'a> Stage<'a> {
    /// Pods under the lane's daemon, if that makes pods of this runtime.
    ///
    /// # Errors
    /// [`Skip`] where containerd has no such pods.
    pub fn open(lane: &'a Lane, runtime: Runtime) -> Result<Self> {
        if let Some(why) = runtime.sandboxer.lacks(lane.engine()) {
            return Err(Skip(why.to_owned()).into());
        }
        let needs_own = !runtime.sandboxer.environment(lane.engine()).is_empty();
        if needs_own {
            return Self::with_own_daemon(lane, runtime);
        }
        let cri = Cri::new(&lane.daemon().socket());
        Ok(Self { lane, runtime, cri, own: None })
    }

    /// Runs a pod with a container to their ends, of the first runtime that the lane can have: the
    /// folders that they make for ever are no leak of the first test.
    ///
    /// # Errors
    /// When it does not run.
    pub fn warm_up(lane: &'a Lane, runtimes: &[Runtime]) -> Result<()> {
        let lacks = |runtime: &&Runtime| runtime.sandboxer.lacks(lane.engine()).is_some();
        let Some(runtime) = runtimes.iter().find(|runtime| !lacks(runtime)) else { return Ok(()) };
        let stage = Self::open(lane, *runtime)?;
        let pod = stage.pod()?;
        pod.start(&Draft::new("first", &["true"]))?.wait()?;
        pod.remove()
    }

    fn with_own_daemon(lane: &'a Lane, runtime: Runtime) -> Result<Self> {
        let own = lane.own_daemon_with(runtime.sandboxer.environment(lane.engine()))?;
        Ok(Self { lane, runtime, cri: Cri::new(&own.socket()), own: Some(own) })
    }

    /// Pods under a daemon that the test may stop and kill.
    ///
    /// # Errors
    /// When it does not start.
    pub fn apart(&self) -> Result<Self> {
        Self::with_own_daemon(self.lane, self.runtime)
    }

    /// The lane.
    #[must_use]
    pub fn lane(&self) -> &Lane {
        self.lane
    }

    /// The runtime of the pods.
    #[must_use]
    pub fn runtime(&self) -> Runtime {
        self.runtime
    }

    /// The client of the daemon.
    #[must_use]
    pub fn cri(&self) -> &Cri {
        &self.cri
    }

    /// The daemon that is this stage's alone: see [`Self::apart`].
    ///
    /// # Errors
    /// When it shares the lane's.
    pub fn daemon(&mut self) -> Result<&mut Daemon> {
        self.own.as_mut().context("the daemon is not the test's own")
    }

    /// Runs a pod.
    ///
    /// # Errors
    /// When containerd refuses.
    pub fn pod(&self) -> Result<Pod> {
        self.pod_with(|_| ())
    }

    /// Runs a pod whose configuration is changed first.
    ///
    /// # Errors
    /// When containerd refuses.
    pub fn pod_with(&self, change: impl FnOnce(&mut m::PodConfig)) -> Result<Pod> {
        let (name, logs) = (self.lane.name(), self.lane.folder()?);
        let mut config = pod::config(self.lane.mark(), &name, &logs);
        change(&mut config);
        Pod::run(&self.cri, &name, self.runtime.handler, config, logs)
    }

    /// An empty folder of the test's own.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn folder(&self) -> Result<Folder> {
        self.lane.folder()
    }
}
