//! A container's life in containerd's order of calls, one step at a time, and its end at any time.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::Value;
use shim_client::{Bundle, Rootfs, ShimBinary, SpecBuilder, Task, execute};
use shim_protos::protobuf::MessageField;
use shim_protos::task::{
    ConnectRequest, CreateTaskRequest, DeleteRequest, KillRequest, PidsRequest, ShutdownRequest,
    StartRequest, StateRequest, StatsRequest, WaitRequest,
};
use tokio::time::timeout;
use ttrpc::r#async::Client;

use super::calls::{BOUND, Hang, bounded, exec_request, is_not_found};
use super::matrix::Step;
use super::role::{Role, processes_of};
use super::stage::Stage;
use super::tap::Tap;
use crate::procs;

/// How long the user's cleaning up may take.
pub const CLEAN_UP: Duration = Duration::from_secs(5);

/// What the containers of a round print, where that matters.
pub const PRINTED: usize = 300_000;

/// How the execs end.
const EXEC_STATUS: u32 = 7;

/// How often a running container is looked at.
const LOOKS: usize = 8;

/// One container, from its bundle to its removal.
#[derive(Debug)]
pub struct Life {
    /// Its id.
    pub id: String,
    /// Reads the shim's log.
    pub logger: Tap,
    /// Reads the container's output.
    pub reader: Tap,
    /// The shim, once it is known.
    pub shim: Option<i32>,
    /// The stem, once it is known.
    pub stem: Option<i32>,
    /// The container's first process, once it is known.
    pub init: Option<i32>,
    /// The first process's exit status, once Wait has told it.
    pub exit: Option<u32>,
    /// What `start` executes: the shim, or something that executes it.
    pub program: ShimBinary,
    /// For all that goes with it and is not in the bundle.
    pub folder: PathBuf,
    prints: Prints,
    reached: Step,
    bundle: Bundle,
    task: Option<Task>,
    address: Option<(String, u32)>,
}

impl Life {
    /// Makes a bundle; its program prints if `prints`, and then sleeps.
    ///
    /// # Errors
    /// When a file cannot be made.
    pub fn new(stage: &Stage, prints: Prints) -> Result<Self> {
        Self::of(stage, prints, |_| {})
    }

    /// The same, by another spec.
    ///
    /// # Errors
    /// When a file cannot be made.
    pub fn of(stage: &Stage, prints: Prints, change: impl FnOnce(&mut Value)) -> Result<Self> {
        let id = stage.name();
        let folder = stage.dir.join("c").join(&id);
        fs::create_dir_all(&folder)?;
        let print = format!("yes | head -c {PRINTED}; exec sleep 1000");
        let args: &[&str] = match prints {
            Prints::Much => &["sh", "-c", &print],
            Prints::Nothing => &["sleep", "1000"],
        };
        let mut spec = SpecBuilder::new(&stage.mark, &id).args(args);
        if let Some(group) = &stage.group {
            spec = spec.annotation("io.containerd.runc.v2.group", group);
        }
        let mut spec = spec.build();
        change(&mut spec);
        let bundles = stage.dir.join("b");
        let bundle = Bundle::create(&bundles, &id, &folder.join("work"), Some(&spec))?;
        let stdout = folder.join("stdout");
        mkfifo(&stdout, Mode::S_IRWXU)?;
        Ok(Self {
            logger: Tap::open(&bundle.log())?,
            reader: Tap::open(&stdout)?,
            id,
            shim: None,
            stem: None,
            init: None,
            exit: None,
            program: stage.binary.clone(),
            folder,
            prints,
            reached: Step::Bootstrap,
            bundle,
            task: None,
            address: None,
        })
    }

    /// A container beside this one, for the same shim.
    ///
    /// # Errors
    /// When a file cannot be made.
    pub fn beside(&self, stage: &Stage) -> Result<Self> {
        let mut other = Self::new(stage, Prints::Nothing)?;
        other.address.clone_from(&self.address);
        (other.shim, other.stem) = (self.shim, self.stem);
        Ok(other)
    }

    /// Goes one step.
    ///
    /// # Errors
    /// When a call fails, answers wrongly, or ends in [`Hang`].
    pub async fn go(&mut self, stage: &Stage, step: Step) -> Result<()> {
        let gone = match step {
            Step::Bootstrap => self.bootstrap(stage).await,
            Step::Create => self.create(stage).await,
            Step::Start => self.start().await,
            Step::Running => self.look().await,
            Step::Exec => self.exec("e").await,
            Step::Delete => self.delete().await,
        };
        gone.context(step.name())?;
        self.reached = step;
        Ok(())
    }

    async fn bootstrap(&mut self, stage: &Stage) -> Result<()> {
        let options = stage.options.as_ref();
        let start = execute::start(&stage.daemon, &self.program, &self.bundle, options);
        let answer = bounded("start", start).await?;
        self.address = Some((answer.address, answer.version));
        self.connect(stage).await?;
        self.find_shim();
        if self.shim.is_none() {
            // It was started for another container.
            let request = ConnectRequest { id: self.id.clone(), ..Default::default() };
            let told = bounded("connect", self.task()?.connect(&request)).await?;
            self.shim = Some(told.shim_pid.cast_signed());
        }
        ensure!(self.shim.is_some(), "there is no process that serves");
        // A connection may wait in the kernel for a shim that has not taken it.
        ensure!(self.is_served().await, "it does not answer");
        // The stem is made before the first answer, and may not have been there yet.
        self.find_shim();
        Ok(())
    }

    /// Connects to the shim, again if need be.
    ///
    /// # Errors
    /// When it is not there, or its address was never told.
    pub async fn connect(&mut self, stage: &Stage) -> Result<()> {
        let (address, version) = self.address.clone().context("the address is not known")?;
        let client = timeout(BOUND, Client::connect(&address)).await;
        let client = client.map_err(|_| Hang("connect".to_owned()))?.context("connect")?;
        self.task = Some(Task::new(client, version, &stage.daemon));
        Ok(())
    }

    /// Its bundle.
    #[must_use]
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// The shim's address, once it was told.
    #[must_use]
    pub fn address(&self) -> Option<&str> {
        self.address.as_ref().map(|(address, _)| address.as_str())
    }

    /// Whether the shim's address was told.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.address.is_some()
    }

    /// Whether there is a connection, be it a live one or not.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.task.is_some()
    }

    /// Whether its program prints.
    #[must_use]
    pub fn prints(&self) -> bool {
        self.prints == Prints::Much
    }

    /// The last step that it has gone.
    #[must_use]
    pub fn reached(&self) -> Step {
        self.reached
    }

    /// Drops the connection, as a daemon that dies.
    pub fn hang_up(&mut self) {
        self.task = None;
    }

    /// Looks up which processes are the shim and its stem.
    pub fn find_shim(&mut self) {
        let all = processes_of(&self.id);
        let find = |role| all.iter().find(|(_, found)| *found == role).map(|(pid, _)| *pid);
        self.shim = find(Role::Serving).or(self.shim);
        self.stem = find(Role::Stem).or(self.stem);
    }

    /// Whether the shim is there and answers.
    pub async fn is_served(&self) -> bool {
        let Some(task) = &self.task else { return false };
        if !self.shim.is_some_and(procs::runs) {
            return false;
        }
        let request = ConnectRequest { id: self.id.clone(), ..Default::default() };
        match timeout(BOUND, task.connect(&request)).await {
            // A refusal is an answer, too.
            Ok(Err(error)) => error.code().is_some(),
            answer => answer.is_ok(),
        }
    }

    pub(super) fn task(&self) -> Result<&Task> {
        self.task.as_ref().context("there is no connection")
    }

    async fn create(&mut self, stage: &Stage) -> Result<()> {
        let request = CreateTaskRequest {
            id: self.id.clone(),
            bundle: self.bundle.path().display().to_string(),
            rootfs: Rootfs::Directory(stage.rootfs.clone()).mounts(&self.folder)?,
            stdout: self.folder.join("stdout").display().to_string(),
            options: MessageField::from_option(stage.options.clone()),
            ..Default::default()
        };
        let created = bounded("create", self.task()?.create(&request)).await?;
        self.init = Some(created.pid.cast_signed());
        let request = ConnectRequest { id: self.id.clone(), ..Default::default() };
        let told = bounded("connect", self.task()?.connect(&request)).await?;
        ensure!(told.task_pid == created.pid, "connect tells another process: {told:?}");
        Ok(())
    }

    async fn start(&mut self) -> Result<()> {
        let request = StartRequest { id: self.id.clone(), ..Default::default() };
        let started = bounded("start", self.task()?.start(&request)).await?;
        self.init = Some(started.pid.cast_signed());
        Ok(())
    }

    async fn look(&self) -> Result<()> {
        let (task, id) = (self.task()?, self.id.clone());
        for _ in 0..LOOKS {
            let request = StateRequest { id: id.clone(), ..Default::default() };
            bounded("state", task.state(&request)).await?;
            let request = PidsRequest { id: id.clone(), ..Default::default() };
            let pids = bounded("pids", task.pids(&request)).await?;
            ensure!(!pids.processes.is_empty(), "there are no processes");
            let request = StatsRequest { id: id.clone(), ..Default::default() };
            bounded("stats", task.stats(&request)).await?;
        }
        Ok(())
    }

    /// Runs an exec from its addition to its deletion.
    ///
    /// # Errors
    /// When a call fails, or it does not end as it should.
    pub async fn exec(&self, exec_id: &str) -> Result<()> {
        let (task, id) = (self.task()?, self.id.clone());
        let args = ["sh", "-c", "exit 7"];
        let request = exec_request(&id, exec_id, &self.bundle.spec()?, &args)?;
        let exec_id = exec_id.to_owned();
        bounded("exec", task.exec(&request)).await?;
        let request =
            StartRequest { id: id.clone(), exec_id: exec_id.clone(), ..Default::default() };
        bounded("start of the exec", task.start(&request)).await?;
        let request =
            WaitRequest { id: id.clone(), exec_id: exec_id.clone(), ..Default::default() };
        let ended = bounded("wait for the exec", task.wait(&request)).await?;
        let request = DeleteRequest { id, exec_id, ..Default::default() };
        bounded("delete of the exec", task.delete(&request)).await?;
        ensure!(ended.exit_status == EXEC_STATUS, "the exec ended with {}", ended.exit_status);
        Ok(())
    }

    async fn delete(&mut self) -> Result<()> {
        self.kill().await?;
        let request = WaitRequest { id: self.id.clone(), ..Default::default() };
        self.exit = Some(bounded("wait", self.task()?.wait(&request)).await?.exit_status);
        let request = DeleteRequest { id: self.id.clone(), ..Default::default() };
        let deleted = bounded("delete", self.task()?.delete(&request)).await?;
        ensure!(Some(deleted.exit_status) == self.exit, "delete tells another exit: {deleted:?}");
        Ok(())
    }

    async fn kill(&self) -> Result<()> {
        let request =
            KillRequest { id: self.id.clone(), signal: 9, all: true, ..Default::default() };
        match bounded("kill", self.task()?.kill(&request)).await {
            // It has ended by itself, or was ended.
            Err(error) if is_not_found(&error) => Ok(()),
            killed => killed.map(drop),
        }
    }

    /// Waits until all that the container has printed was read.
    ///
    /// # Errors
    /// When some of it does not come.
    pub async fn printed_all(&self) -> Result<()> {
        let begun = Instant::now();
        while self.reader.count() < PRINTED && begun.elapsed() < BOUND {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let count = self.reader.count();
        ensure!(count == PRINTED, "{count} bytes of {PRINTED} were read");
        Ok(())
    }

    /// What a user does with whatever is left, in at most [`CLEAN_UP`]: Kill, Wait, Delete and
    /// Shutdown as far as somebody answers, then the `delete` action and the bundle's removal.
    ///
    /// # Errors
    /// When it takes longer, or the last two fail. What a shim refuses is no error.
    pub async fn clean_up(&mut self, stage: &Stage) -> Result<()> {
        let begun = Instant::now();
        let calls = timeout(CLEAN_UP, self.ask_to_end()).await;
        let asked = begun.elapsed();
        self.task = None;
        let deleted = execute::delete(&stage.daemon, &stage.binary, &self.bundle).await;
        let removed = self.discard();
        let took = begun.elapsed();
        calls.map_err(|_| Hang("cleaning up".to_owned()))?;
        deleted.context("the delete action")?;
        removed?;
        if took > CLEAN_UP {
            bail!("cleaning up takes {took:?}, of which the calls {asked:?}");
        }
        Ok(())
    }

    /// Hangs up and removes the bundle of a deleted container.
    ///
    /// # Errors
    /// When something of it stays.
    pub fn discard(&mut self) -> Result<()> {
        self.task = None;
        self.logger.close();
        self.reader.close();
        let removed = self.bundle.remove().context("remove the bundle");
        removed.and(fs::remove_dir_all(&self.folder).context("remove the container's folder"))
    }

    async fn ask_to_end(&mut self) {
        let Some(task) = self.task.clone() else { return };
        let id = self.id.clone();
        // Whatever fails, the next call may still do its part.
        let _ = self.kill().await;
        let request = WaitRequest { id: id.clone(), ..Default::default() };
        if let Ok(ended) = task.wait(&request).await {
            self.exit = Some(ended.exit_status);
        }
        let request = DeleteRequest { id: id.clone(), ..Default::default() };
        let _ = task.delete(&request).await;
        if self.shim.is_some() {
            let request = ShutdownRequest { id, ..Default::default() };
            let _ = task.shutdown(&request).await;
        }
    }
}

/// Whether a container prints.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Prints {
    /// [`PRINTED`] bytes, more than all pipes on the way hold.
    Much,
    /// Not a byte.
    Nothing,
}
