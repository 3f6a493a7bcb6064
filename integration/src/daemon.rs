//! A private containerd: its own root, state and sockets in one short folder.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use crate::cri::client::Cri;
use crate::cri::config::{self, Runtime};
use crate::cri::network;
use crate::ctr::Ctr;
use crate::debs::{Deb, Store};
use crate::engine::Engine;
use crate::shim::Shim;
use crate::wait::{self, SOON};
use crate::{mounts, procs};

/// A running containerd, or one that was stopped and can start again on the same state.
///
/// When dropped it ends, and so do its files: unless something is still mounted among them.
#[derive(Debug)]
pub struct Daemon {
    program: PathBuf,
    path: OsString,
    log: PathBuf,
    environment: Vec<(&'static str, &'static str)>,
    dir: PathBuf,
    child: Option<Child>,
    makes_pods: bool,
    ctr: Ctr,
}

/// What daemons of a kind have in common.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Which containerd.
    pub engine: Engine,
    /// Which shim.
    pub shim: Shim,
    /// Where both come from.
    pub store: Store,
    /// containerd's namespace for all that is done.
    pub namespace: String,
    /// Where containerd and its shims write their log; several daemons may share it.
    pub log: PathBuf,
    /// What its environment has beside the test's.
    pub environment: Vec<(&'static str, &'static str)>,
    /// The runtimes of which it makes pods; without one it knows nothing of pods.
    pub runtimes: &'static [Runtime],
}

impl Setup {
    /// The daemon's configuration, with everything below `dir`.
    fn config(&self, dir: &Path) -> Result<String> {
        if self.runtimes.is_empty() {
            return Ok(self.engine.config(dir));
        }
        let (plugins, networks) = (network::plugins(&self.store)?, network::networks());
        let cni = [plugins.as_path(), networks.as_path()];
        Ok(config::config(self.engine, dir, self.runtimes, self.shim.runtime(), cni))
    }
}

impl Daemon {
    /// Starts containerd with everything in `dir`, and waits until it answers.
    ///
    /// `dir` has to be short: a socket's path has at most 107 characters.
    ///
    /// # Errors
    /// When a program is missing or containerd does not come up.
    pub fn start(setup: &Setup, dir: &Path) -> Result<Self> {
        let Setup { engine, shim, store, namespace, log, environment, runtimes } = setup;
        fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
        fs::write(dir.join("config.toml"), setup.config(dir)?)?;
        let bin = engine.bin_dir(store)?;
        let mut path = vec![shim.dir(*engine, store)?, bin.clone()];
        path.push(store.unpacked(Deb::RUNC)?.join("usr/sbin"));
        path.extend(env::split_paths("/usr/sbin:/usr/bin:/sbin:/bin"));
        let mut daemon = Self {
            program: bin.join("containerd"),
            path: env::join_paths(path)?,
            log: log.clone(),
            environment: environment.clone(),
            dir: dir.to_owned(),
            child: None,
            makes_pods: !runtimes.is_empty(),
            ctr: Ctr::new(&bin, &dir.join("c.sock"), namespace, *engine),
        };
        daemon.start_again()?;
        Ok(daemon)
    }

    /// The client of this daemon.
    #[must_use]
    pub fn ctr(&self) -> &Ctr {
        &self.ctr
    }

    /// containerd's socket for clients.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.join("c.sock")
    }

    /// The folder of a container's bundle.
    #[must_use]
    pub fn bundle(&self, id: &str) -> PathBuf {
        let tasks = self.dir.join("state/io.containerd.runtime.v2.task");
        tasks.join(self.ctr.namespace()).join(id)
    }

    /// Whether containerd still runs.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.child.as_ref().is_some_and(|child| procs::runs(child.id().cast_signed()))
    }

    /// Starts a daemon that was stopped or killed, on the same state.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start_again(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "containerd was not stopped");
        let log = File::options().create(true).append(true).open(&self.log)?;
        let child = Command::new(&self.program)
            .arg("--config")
            .arg(self.dir.join("config.toml"))
            .env("PATH", &self.path)
            .envs(self.environment.iter().copied())
            // A service manager's containerd has none of the test's own signals to share.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {}", self.program.display()))?;
        self.child = Some(child);
        wait::until("containerd's answer", SOON * 3, || {
            self.ctr.ok(&["--connect-timeout", "2s", "version"]).map(drop)
        })?;
        if self.makes_pods { Cri::new(&self.socket()).wait_ready() } else { Ok(()) }
    }

    /// Ends containerd in order: SIGTERM, as a service manager does.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn stop(&mut self) -> Result<()> {
        let Some(child) = &mut self.child else { return Ok(()) };
        procs::signal(child.id().cast_signed(), Signal::SIGTERM)?;
        wait::until("the end of containerd", SOON, || child.try_wait()?.context("it runs"))?;
        self.child = None;
        Ok(())
    }

    /// Ends containerd as a crash does.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Both fail only when it has ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.stop().is_err() {
            self.kill();
        }
        // A folder that stays is found by the leak check.
        let _ = mounts::remove_dir_all(&self.dir);
    }
}
