//! What a test has to work with: an engine, its daemon, an image, and names nobody else has.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Result, anyhow, ensure};

use crate::client::Client;
use crate::container::Container;
use crate::cri::client::Cri;
use crate::cri::config::{self, Runtime};
use crate::cri::network;
use crate::cri::stage::Stage;
use crate::ctr::Ctr;
use crate::daemon::{Daemon, Setup};
use crate::debs::Store;
use crate::engine::Engine;
use crate::folder::Folder;
use crate::image::{self, BUSYBOX, Image, Layer, PAUSE};
use crate::isolation;
use crate::runner::Skip;
use crate::session::Output;
use crate::shim::Shim;
use crate::spec::Spec;

/// The root file system's name in a draft's folder.
const ROOTFS: &str = "rootfs";

/// The tests of one engine share this, one after the other.
#[derive(Debug)]
pub struct Lane {
    setup: Setup,
    mark: String,
    layer: Layer,
    archive: PathBuf,
    daemon: Mutex<Daemon>,
    names: AtomicU32,
    lost: AtomicU32,
}

impl Lane {
    /// Starts the engine's daemon, with the image in it. Only inside [`isolation`].
    ///
    /// `mark` is part of every id, and containerd's namespace where that is not CRI's: it tells our
    /// cgroups from others'. The daemon makes pods of those `runtimes`, if there are any.
    ///
    /// # Errors
    /// When a package is missing or the daemon does not start.
    pub fn open(engine: Engine, mark: &str, runtimes: &'static [Runtime]) -> Result<Self> {
        let dir = Path::new(isolation::DIR);
        let (store, shim) = (Store::open(), Shim::under_test());
        let namespace = if runtimes.is_empty() { mark } else { config::NAMESPACE }.to_owned();
        let images: &[Image] = if runtimes.is_empty() { &[BUSYBOX] } else { &[BUSYBOX, PAUSE] };
        if !runtimes.is_empty() {
            network::prepare(&store)?;
        }
        let setup = Setup {
            engine,
            shim,
            store,
            namespace,
            log: dir.join("log"),
            environment: Vec::new(),
            runtimes,
        };
        let layer = Layer::new(&setup.store)?;
        let archive = layer.write_images(&dir.join("image.tar"), images)?;
        let daemon = Daemon::start(&setup, &dir.join("d"));
        let daemon = daemon.map_err(|error| anyhow!("{error:#}\n{}", log(&setup)))?;
        let lane = Self {
            setup,
            mark: mark.to_owned(),
            layer,
            archive,
            daemon: Mutex::new(daemon),
            names: AtomicU32::new(0),
            lost: AtomicU32::new(0),
        };
        // The folders that the first container makes are no leak of the first test.
        lane.import(&lane.daemon())?;
        lane.warm_up()?;
        Ok(lane)
    }

    /// The containerd version.
    #[must_use]
    pub fn engine(&self) -> Engine {
        self.setup.engine
    }

    /// The shim under test.
    #[must_use]
    pub fn shim(&self) -> &Shim {
        &self.setup.shim
    }

    /// Skips the test if it is containerd's own shim that is judged: nobody mends that one here.
    ///
    /// # Errors
    /// [`Skip`], which the test has to return.
    pub fn go_cannot(&self, why: &str) -> Result<()> {
        if self.setup.shim.is_go() {
            return Err(Skip(format!("containerd's own shim: {why}")).into());
        }
        Ok(())
    }

    /// The client of the shared daemon.
    #[must_use]
    pub fn ctr(&self) -> Ctr {
        self.daemon().ctr().clone()
    }

    /// The bundle of a container under the shared daemon.
    #[must_use]
    pub fn bundle(&self, id: &str) -> PathBuf {
        self.daemon().bundle(id)
    }

    /// The shared daemon. Held only for a moment: whoever asks for its client waits.
    pub(crate) fn daemon(&self) -> MutexGuard<'_, Daemon> {
        self.daemon.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A name that was not used before.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}-{}", self.mark(), self.names.fetch_add(1, Ordering::Relaxed))
    }

    /// The text that is part of each name and cgroup.
    #[must_use]
    pub fn mark(&self) -> &str {
        &self.mark
    }

    /// An empty folder of this test's own.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn folder(&self) -> Result<Folder> {
        Folder::new(Path::new(isolation::DIR).join(self.name()))
    }

    /// A daemon of this test's own, to be stopped and killed, with the image in it.
    ///
    /// # Errors
    /// When it does not start.
    pub fn own_daemon(&self) -> Result<Daemon> {
        self.own_daemon_with(&[])
    }

    /// The same, with more in its environment.
    ///
    /// # Errors
    /// When it does not start.
    pub fn own_daemon_with(&self, environment: &[(&'static str, &'static str)]) -> Result<Daemon> {
        let number = self.names.fetch_add(1, Ordering::Relaxed);
        let dir = Path::new(isolation::DIR).join(format!("d{number}"));
        let setup = Setup { environment: environment.to_vec(), ..self.setup.clone() };
        let daemon = Daemon::start(&setup, &dir)?;
        self.import(&daemon)?;
        Ok(daemon)
    }

    /// Puts a new shared daemon in the place of one that a failed test may have spoiled.
    ///
    /// # Errors
    /// When it does not start.
    pub fn renew(&self) -> Result<()> {
        let daemon = self.own_daemon()?;
        *self.daemon() = daemon;
        self.warm_up()
    }

    fn import(&self, daemon: &Daemon) -> Result<()> {
        daemon.ctr().import(&self.archive)?;
        let images = [BUSYBOX, PAUSE].iter().filter(|_| !self.setup.runtimes.is_empty());
        images.clone().try_for_each(|image| Cri::new(&daemon.socket()).wait_image(image.name))
    }

    fn warm_up(&self) -> Result<()> {
        if !self.setup.runtimes.is_empty() {
            let warm = Stage::warm_up(self, self.setup.runtimes);
            return warm.map_err(|error| anyhow!("no pod runs: {error:#}\n{}", self.log()));
        }
        let first = self.run(&[], &["true"])?;
        let stderr = first.stderr.trim();
        ensure!(first.status == 0, "no container runs: {stderr}\n{}", self.log());
        Ok(())
    }

    /// What the lane's daemons and their shims have logged.
    #[must_use]
    pub fn log(&self) -> String {
        log(&self.setup)
    }

    /// Runs a container in the foreground, whatever its outcome.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn run(&self, flags: &[&str], args: &[&str]) -> Result<Output> {
        let name = self.name();
        self.ctr().run(&self.run_command(&[&["--rm"], flags].concat(), &name, args))
    }

    /// Runs a container that has to succeed and to write something, and returns that.
    ///
    /// # Errors
    /// When the container fails, or its output stays empty.
    pub fn output(&self, flags: &[&str], args: &[&str]) -> Result<String> {
        let output = self.with_output(|| self.run(flags, args))?;
        ensure!(output.status == 0, "{args:?}: {}: {}", output.status, output.stderr.trim());
        ensure!(!output.stdout.is_empty(), "{args:?}: no output, again and again");
        Ok(output.stdout)
    }

    /// Repeats a run that succeeded without a word, and counts it.
    ///
    /// `ctr` may open the fifos after a short-lived container's shim has closed them; then the
    /// output is lost whatever the shim does.
    fn with_output(&self, run: impl Fn() -> Result<Output>) -> Result<Output> {
        let mut output = run()?;
        for _ in 0..2 {
            if output != Output::default() {
                break;
            }
            self.lost.fetch_add(1, Ordering::Relaxed);
            output = run()?;
        }
        Ok(output)
    }

    /// How many runs had no output where there should have been some.
    #[must_use]
    pub fn lost_outputs(&self) -> u32 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Starts a container in the background.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(&self, flags: &[&str], args: &[&str]) -> Result<Container> {
        self.start_on(&self.ctr(), flags, args)
    }

    /// Starts a container that does nothing for a long time, and writes nowhere.
    ///
    /// # Errors
    /// When it does not start.
    pub fn sleeper(&self, flags: &[&str]) -> Result<Container> {
        let container = self.start(&[&["--null-io"], flags].concat(), &["sleep", "1000"])?;
        container.settle()?;
        Ok(container)
    }

    /// Starts a container in the background, under another daemon than the shared one.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_on(&self, ctr: &Ctr, flags: &[&str], args: &[&str]) -> Result<Container> {
        let name = self.name();
        ctr.ok(&self.run_command(&[&["--detach"], flags].concat(), &name, args))?;
        Ok(Container::new(ctr, &name))
    }

    /// Runs a container by a spec instead of flags, whatever its outcome.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn run_spec(&self, args: &[&str], change: impl FnOnce(Spec) -> Spec) -> Result<Output> {
        self.run_draft(&self.draft(args)?, change)
    }

    /// Runs a drafted container, whatever its outcome.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn run_draft(&self, draft: &Draft, change: impl FnOnce(Spec) -> Spec) -> Result<Output> {
        let config = draft.folder.join("config.json");
        change(draft.spec.clone()).write(Path::new(&config))?;
        let command = self.spec_command("--rm", &config, &draft.name);
        self.with_output(|| self.ctr().run(&command))
    }

    /// Starts a container by a spec, in the background, whose program does not end by itself.
    ///
    /// Its root file system is in the folder.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_spec(
        &self,
        args: &[&str],
        change: impl FnOnce(Spec) -> Spec,
    ) -> Result<(Container, Folder)> {
        let Draft { name, spec, folder } = self.draft(args)?;
        let config = folder.join("config.json");
        change(spec).write(Path::new(&config))?;
        self.ctr().ok(&self.spec_command("--detach", &config, &name))?;
        let container = Container::new(&self.ctr(), &name);
        container.settle()?;
        Ok((container, folder))
    }

    /// What a container without an image is made of.
    ///
    /// # Errors
    /// When its root file system cannot be made.
    pub fn draft(&self, args: &[&str]) -> Result<Draft> {
        let (name, folder) = (self.name(), self.folder()?);
        let rootfs = folder.path().join(ROOTFS);
        fs::create_dir(&rootfs)?;
        self.layer.unpack(&rootfs)?;
        let spec = Spec::new(&rootfs, &format!("/{}/{name}", self.mark()), args);
        Ok(Draft { name, spec, folder })
    }

    /// Talks to the shared daemon as a program does.
    ///
    /// # Errors
    /// Those of `talk`.
    pub fn talk<T>(&self, talk: impl AsyncFnOnce(Client) -> Result<T>) -> Result<T> {
        let socket = self.daemon().socket();
        self.talk_at(&socket, talk)
    }

    /// Talks to a daemon of the test's own as a program does.
    ///
    /// # Errors
    /// Those of `talk`.
    pub fn talk_to<T>(
        &self,
        daemon: &Daemon,
        talk: impl AsyncFnOnce(Client) -> Result<T>,
    ) -> Result<T> {
        self.talk_at(&daemon.socket(), talk)
    }

    fn talk_at<T>(&self, socket: &Path, talk: impl AsyncFnOnce(Client) -> Result<T>) -> Result<T> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let (namespace, shim) = (&self.setup.namespace, self.setup.shim.runtime());
            let client = Client::connect(socket, namespace, shim).await?;
            talk(client).await
        })
    }

    fn spec_command<'a>(&'a self, mode: &'a str, config: &'a str, name: &'a str) -> [&'a str; 7] {
        ["run", "--runtime", self.setup.shim.runtime(), mode, "--config", config, name]
    }

    /// The arguments of `ctr` that run the container `name`.
    #[must_use]
    pub fn run_command<'a>(
        &'a self,
        flags: &[&'a str],
        name: &'a str,
        args: &[&'a str],
    ) -> Vec<&'a str> {
        let head = ["run", "--runtime", self.setup.shim.runtime()];
        [&head, flags, &[image::NAME, name], args].concat()
    }
}

fn log(setup: &Setup) -> String {
    fs::read_to_string(&setup.log).unwrap_or_else(|error| error.to_string())
}

/// A container that does not exist yet.
#[derive(Debug)]
pub struct Draft {
    /// Its id.
    pub name: String,
    /// Its spec, with a root file system in `folder`.
    pub spec: Spec,
    /// Holds the root file system, and whatever else the container's streams and mounts need.
    pub folder: Folder,
}

impl Draft {
    /// The root file system's folder.
    #[must_use]
    pub fn rootfs(&self) -> String {
        self.folder.join(ROOTFS)
    }
}
