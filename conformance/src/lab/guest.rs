//! A shim that the case has started, the container in it, and the container's streams.

use std::cell::RefCell;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use shim_client::{Fifos, Reason, Shape, Shim, Sinks, Streams, execute, mounts_below};
use shim_protos::Any;
use shim_protos::protobuf::MessageField;
use shim_protos::task::{CreateTaskRequest, ExecProcessRequest};
use shim_protos::types::{Mount, Status};

use super::ask::{Ask, Io};
use super::output::Captured;
use super::restart::Left;
use super::{Lab, SOON, eventually, procs};

/// How long a case waits for an answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A shim and its container.
#[derive(Debug)]
pub(crate) struct Guest {
    /// The container's id.
    pub(crate) id: String,
    /// The shim, connected.
    pub(crate) shim: Shim,
    /// The spec in its bundle.
    pub(crate) spec: Value,
    /// What it wrote to stdout, or its terminal showed.
    pub(crate) stdout: Captured,
    /// What it wrote to stderr.
    pub(crate) stderr: Captured,
    rootfs: Vec<Mount>,
    options: Option<Any>,
    uris: [String; 3],
    terminal: bool,
    streams: RefCell<Option<Streams>>,
    shim_pid: RefCell<Option<u32>>,
}

impl Guest {
    pub(super) fn new(
        shim: Shim,
        spec: Value,
        ask: Ask,
        options: Option<Any>,
        lab: &Lab,
    ) -> Result<Self> {
        let id = shim.bundle().id().to_owned();
        let (stdout, stderr) = (Captured::default(), Captured::default());
        let terminal = ask.io == Io::Terminal;
        let mut streams = None;
        let uris = match ask.io {
            Io::Null => Default::default(),
            Io::Pipes | Io::Terminal => {
                let shape = if terminal { Shape::Terminal } else { Shape::Pipes };
                let (fifos, reader) = open_fifos(
                    &lab.folder.join("io").join(&id),
                    shape,
                    [stdout.clone(), stderr.clone()],
                )?;
                streams = Some(reader);
                [fifos.stdin(), fifos.stdout(), fifos.stderr()]
            }
            Io::Uris(stdin, stdout, stderr) => [stdin, stdout, stderr],
        };
        let rootfs = lab.rootfs(&id)?;
        let streams = RefCell::new(streams);
        let shim_pid = RefCell::default();
        Ok(Self {
            id,
            shim,
            spec,
            stdout,
            stderr,
            rootfs,
            options,
            uris,
            terminal,
            streams,
            shim_pid,
        })
    }

    /// The request that Create sends.
    pub(crate) fn create_request(&self) -> CreateTaskRequest {
        let [stdin, stdout, stderr] = self.uris.clone();
        CreateTaskRequest {
            id: self.id.clone(),
            bundle: self.shim.bundle().path().display().to_string(),
            rootfs: self.rootfs.clone(),
            terminal: self.terminal,
            stdin,
            stdout,
            stderr,
            options: MessageField(self.options.clone().map(Box::new)),
            ..Default::default()
        }
    }

    /// Takes the connection away, and tells how the guest comes back with another.
    pub(super) fn part(self) -> (Shim, Left) {
        let Self { id, shim, spec, stdout, stderr, rootfs, options, uris, terminal, .. } = self;
        let (streams, shim_pid) = (self.streams, self.shim_pid);
        let back = move |shim| Self {
            id,
            shim,
            spec,
            stdout,
            stderr,
            rootfs,
            options,
            uris,
            terminal,
            streams,
            shim_pid,
        };
        let left = Left::new(&shim, Box::new(back));
        (shim, left)
    }

    /// Kills the shim, as a bug or the kernel would.
    pub(crate) async fn kill_shim(&self) -> Result<()> {
        let pid = self.shim_pid().await?;
        procs::signal(pid, Signal::SIGKILL)?;
        self.expect_shim_ends().await
    }

    /// Tells the shim to end, which it has to do: it has no container.
    pub(crate) async fn shut_down(&self) -> Result<()> {
        self.shim_pid().await?;
        match self.shutdown().await {
            Ok(_) => {}
            // It may end faster than its answer travels.
            Err(error) if error.reason == Reason::Gone => {}
            Err(error) => return Err(error.into()),
        }
        self.expect_shim_ends().await
    }

    /// The shim has to end soon.
    pub(crate) async fn expect_shim_ends(&self) -> Result<()> {
        let pid = (*self.shim_pid.borrow()).context("ask for the shim's pid while it lives")?;
        // Its descriptors are closed when the last of its threads has ended, and only then can it
        // be reaped.
        let gone = || {
            procs::reap();
            i32::try_from(pid).is_ok_and(|pid| procs::find(pid).is_none())
        };
        ensure!(
            eventually(SOON, gone).await,
            "the shim still runs after {SOON:?}, as process {pid}"
        );
        Ok(())
    }

    /// What is mounted in the bundle.
    pub(crate) fn mounts(&self) -> Result<Vec<PathBuf>> {
        mounts_below(self.shim.bundle().path())
    }

    /// The shim's own pid, as it tells it.
    pub(crate) async fn shim_pid(&self) -> Result<u32> {
        let known = *self.shim_pid.borrow();
        if let Some(pid) = known {
            return Ok(pid);
        }
        let pid = self.connect().await?.shim_pid;
        ensure!(procs::runs(pid), "Connect says that the shim is process {pid}, and there is none");
        self.shim_pid.replace(Some(pid));
        Ok(pid)
    }

    /// The name of the task service that the shim announced.
    pub(crate) fn service(&self) -> &'static str {
        match self.shim.answer.version {
            2 => "containerd.task.v2.Task",
            _ => "containerd.task.v3.Task",
        }
    }

    /// The init process's pid.
    pub(crate) async fn pid(&self) -> Result<u32> {
        Ok(self.state("").await?.pid)
    }

    /// The state of a process has to be that.
    pub(crate) async fn expect_status(&self, exec: &str, expected: Status) -> Result<()> {
        let status = self.state(exec).await?.status.enum_value_or_default();
        ensure!(status == expected, "State says {status:?}, expected {expected:?}");
        Ok(())
    }

    /// The state of a process has to become that.
    pub(crate) async fn await_status(&self, exec: &str, expected: Status) -> Result<()> {
        let deadline = tokio::time::Instant::now() + SOON;
        loop {
            let status = self.state(exec).await?.status.enum_value_or_default();
            if status == expected {
                return Ok(());
            }
            if tokio::time::Instant::now() > deadline {
                bail!("State still says {status:?} after {SOON:?}, expected {expected:?}");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The process has to end with that status.
    pub(crate) async fn expect_exit(&self, exec: &str, expected: u32) -> Result<()> {
        let status = self.wait(exec).await?.exit_status;
        ensure!(status == expected, "Wait tells exit status {status}, expected {expected}");
        Ok(())
    }

    /// Waits until stdout has that text.
    pub(crate) async fn expect_output(&self, text: &str) -> Result<()> {
        if eventually(SOON, || self.stdout.text().contains(text)).await {
            return Ok(());
        }
        bail!("expected {text:?} on stdout, got {:?}", self.stdout.text())
    }

    /// A client's end of the container's stdin, for reading and writing: it opens without the shim.
    pub(crate) fn stdin(&self) -> Result<File> {
        open_fifo(Path::new(&self.uris[0]))
    }

    /// The fifos as they stand in the request.
    pub(crate) fn uris(&self) -> &[String; 3] {
        &self.uris
    }

    /// Kills the init process and waits for its end.
    pub(crate) async fn kill_and_wait(&self) -> Result<()> {
        self.kill("", Signal::SIGKILL as u32).await?;
        self.wait("").await?;
        Ok(())
    }

    /// Ends the container and its shim as containerd does, as far as they are still there.
    pub(super) async fn end(&self) {
        if let Err(error) = self.end_container().await {
            log::debug!("end {}: {error:#}", self.id);
        }
        if let Err(error) = self.shutdown().await
            && error.reason != Reason::Gone
        {
            log::debug!("end {}: {error}", self.id);
        }
        let shim = &self.shim;
        let delete = execute::delete(shim.daemon(), shim.binary(), shim.bundle());
        match procs::while_reaping(delete).await {
            Ok(_) => {}
            Err(error) => log::debug!("end {}: {error:#}", self.id),
        }
        if let Err(error) = shim.bundle().remove() {
            log::warn!("end {}: {error:#}", self.id);
        }
        let streams = self.streams.take();
        if let Some(streams) = streams {
            streams.finish(SOON).await;
        }
    }

    async fn end_container(&self) -> Result<()> {
        let state = self.state("").await?;
        if state.status.enum_value_or_default() != Status::STOPPED {
            self.kill_all(Signal::SIGKILL as u32).await?;
            // Of a paused container the kill shows only when it runs again.
            if state.status.enum_value_or_default() == Status::PAUSED {
                let _ = self.resume().await;
            }
            self.wait("").await?;
        }
        self.delete("").await?;
        Ok(())
    }
}

/// Makes a process's fifos, and readers of its outputs.
fn open_fifos(folder: &Path, shape: Shape, to: [Captured; 2]) -> Result<(Fifos, Streams)> {
    let fifos = Fifos::create(folder, shape)?;
    let [stdout, stderr] = to;
    let sinks = Sinks { stdout: Box::new(stdout), stderr: Box::new(stderr) };
    let streams = Streams::open(&fifos, sinks)?;
    Ok((fifos, streams))
}

/// A fifo for reading and writing, so that neither waits for another side.
pub(crate) fn open_fifo(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(nix::libc::O_NONBLOCK);
    options.open(path).with_context(|| format!("open {}", path.display()))
}

/// How many bytes nobody has read yet.
pub(crate) fn waiting_bytes(fifo: &File) -> Option<u64> {
    rustix::io::ioctl_fionread(fifo).ok()
}

/// The streams of an added process.
#[derive(Debug)]
pub(crate) struct ExecIo {
    /// What goes into the request: stdin, stdout, stderr.
    pub(crate) uris: [String; 3],
    /// What it wrote to stdout.
    pub(crate) stdout: Captured,
    /// What it wrote to stderr.
    pub(crate) stderr: Captured,
    streams: Streams,
}

impl ExecIo {
    /// Fifos with readers, in the lab's folder.
    pub(crate) fn open(lab: &Lab, name: &str, shape: Shape) -> Result<Self> {
        let folder = lab.folder.join("io").join(name);
        fs::create_dir_all(lab.folder.join("io")).context("create a folder for fifos")?;
        let (stdout, stderr) = (Captured::default(), Captured::default());
        let (fifos, streams) = open_fifos(&folder, shape, [stdout.clone(), stderr.clone()])?;
        let uris = [fifos.stdin(), fifos.stdout(), fifos.stderr()];
        Ok(Self { uris, stdout, stderr, streams })
    }

    /// Waits for the end of the outputs, and tells what came: stdout and stderr.
    pub(crate) async fn finish(self) -> [String; 2] {
        self.streams.finish(SOON).await;
        [self.stdout.text(), self.stderr.text()]
    }

    /// Puts the streams into a request.
    pub(crate) fn fill(&self, request: &mut ExecProcessRequest) {
        let [stdin, stdout, stderr] = self.uris.clone();
        (request.stdin, request.stdout, request.stderr) = (stdin, stdout, stderr);
    }

    /// Waits until stdout has that text.
    pub(crate) async fn expect_output(&self, text: &str) -> Result<()> {
        if eventually(SOON, || self.stdout.text().contains(text)).await {
            return Ok(());
        }
        bail!("expected {text:?} on stdout, got {:?}", self.stdout.text())
    }
}
