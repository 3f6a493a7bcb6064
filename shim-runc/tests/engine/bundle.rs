//! Bundles to make containers from, and what one does with a container.

use std::{
    fs,
    io::{Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::PermissionsExt,
    },
    path::PathBuf,
    sync::Arc,
    sync::atomic::{AtomicUsize, Ordering},
};

use serde_json::Value;
use shim_core::{
    Backend, Container, Create, Created, Error, Exec, Init, Process, Streams,
    model::{Bundle, ContainerId, ExecId, ExitStatus, RuntimeOptions},
};
use tempfile::TempDir;

use crate::{Bench, common as bundle};

pub(crate) use crate::common::process;

static NUMBER: AtomicUsize = AtomicUsize::new(0);

/// A bundle on disk, and the spec that goes into it.
pub(crate) struct Made {
    pub(crate) dir: Arc<TempDir>,
    pub(crate) spec: Value,
    pub(crate) id: ContainerId,
    pub(crate) options: Option<RuntimeOptions>,
}

/// A container and what it prints.
pub(crate) struct Running {
    pub(crate) container: Box<dyn Container>,
    pub(crate) init: Option<Process>,
    pub(crate) output: Option<OwnedFd>,
    pub(crate) input: Option<OwnedFd>,
    /// Keeps the bundle on disk.
    pub(crate) _bundle: Arc<TempDir>,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("init", &self.init).finish_non_exhaustive()
    }
}

impl Made {
    /// A bundle whose process is a shell script.
    pub(crate) fn script(script: &str) -> Self {
        Self::command(&["/bin/sh", "-c", script])
    }

    pub(crate) fn command(args: &[&str]) -> Self {
        let dir = Arc::new(TempDir::new_in("/run").unwrap());
        bundle::make_rootfs(&dir.path().join("rootfs"));
        fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let id = format!("c{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let id = ContainerId::parse(&id).unwrap();
        Self { dir, spec: bundle::spec(args), id, options: None }
    }

    pub(crate) fn rootfs(&self) -> PathBuf {
        self.dir.path().join("rootfs")
    }

    pub(crate) fn bundle(&self) -> Bundle {
        Bundle::new(self.dir.path()).unwrap()
    }

    pub(crate) fn write(&self) {
        fs::write(self.dir.path().join("config.json"), self.spec.to_string()).unwrap();
    }

    /// Changes the spec.
    pub(crate) fn with(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.spec);
        self
    }

    pub(crate) async fn create(&self, bench: &Bench) -> Result<Running, Error> {
        let (output, theirs) = nix::unistd::pipe().unwrap();
        let (reads, input) = nix::unistd::pipe().unwrap();
        let streams =
            Streams::Pipes { stdin: reads, stdout: theirs.try_clone().unwrap(), stderr: theirs };
        let mut running = self.create_with(bench, streams).await?;
        running.output = Some(output);
        running.input = Some(input);
        Ok(running)
    }

    pub(crate) async fn create_with(
        &self,
        bench: &Bench,
        streams: Streams,
    ) -> Result<Running, Error> {
        self.write();
        let request = Create {
            id: self.id.clone(),
            bundle: self.bundle(),
            rootfs: Vec::new(),
            streams,
            options: self.options.clone(),
            checkpoint: None,
            host: bench.host.clone(),
        };
        let Created { container, init } = bench.backend.create(request).await?;
        let Init::Made(init) = init else { panic!("it is to have a process") };
        Ok(Running {
            container,
            init: Some(init),
            output: None,
            input: None,
            _bundle: Arc::clone(&self.dir),
        })
    }

    /// Runs the container to its end: what it printed, and how it ended.
    pub(crate) async fn run(&self, bench: &Bench) -> (String, ExitStatus) {
        let mut running = self.create(bench).await.unwrap();
        running.container.start().await.unwrap();
        let status = running.wait().await;
        let printed = running.printed();
        running.container.delete().await.unwrap();
        (printed, status)
    }

    /// What the container prints when it runs without a fault.
    pub(crate) async fn output(&self, bench: &Bench) -> String {
        let (printed, status) = self.run(bench).await;
        assert_eq!(status, ExitStatus::Code(0), "{printed}");
        printed
    }

    /// Why the container can't be created.
    pub(crate) async fn refusal(&self, bench: &Bench) -> String {
        match self.create(bench).await {
            Ok(_) => panic!("it was created"),
            Err(err) => format!("{err:#}"),
        }
    }
}

impl Running {
    pub(crate) async fn wait(&mut self) -> ExitStatus {
        self.init.take().unwrap().exit.await.status
    }

    /// All that was printed, once nobody can print any more.
    pub(crate) fn printed(&mut self) -> String {
        drop(self.input.take());
        read_all(self.output.take().unwrap())
    }

    pub(crate) fn type_in(&self, text: &str) {
        let mut file = fs::File::from(self.input.as_ref().unwrap().try_clone().unwrap());
        file.write_all(text.as_bytes()).unwrap();
    }

    pub(crate) async fn exec(&self, id: &str, args: &[&str]) -> Result<(Process, OwnedFd), Error> {
        self.exec_process(id, process(args)).await
    }

    pub(crate) async fn exec_process(
        &self,
        id: &str,
        process: Value,
    ) -> Result<(Process, OwnedFd), Error> {
        let (output, theirs) = nix::unistd::pipe().unwrap();
        let streams = Streams::Pipes {
            stdin: fs::File::open("/dev/null").unwrap().into(),
            stdout: theirs.try_clone().unwrap(),
            stderr: theirs,
        };
        let id = ExecId::parse(id).unwrap();
        let process = serde_json::from_value(process).unwrap();
        let process = self.container.exec(Exec { id, process, streams }).await?;
        Ok((process, output))
    }

    /// Runs one more process to its end.
    pub(crate) async fn exec_output(&self, args: &[&str]) -> (String, ExitStatus) {
        let (process, output) = self.exec("e", args).await.unwrap();
        let status = process.exit.await.status;
        (read_all(output), status)
    }

    pub(crate) async fn end_quietly(&mut self) {
        let _ = self.container.kill(shim_core::Target::Init, shim_core::model::Signal::KILL).await;
        if let Some(init) = self.init.take() {
            init.exit.await;
        }
        self.container.delete().await.unwrap();
    }

    pub(crate) async fn end(mut self) {
        let _ = self.container.kill(shim_core::Target::Init, shim_core::model::Signal::KILL).await;
        if let Some(init) = self.init.take() {
            init.exit.await;
        }
        self.container.delete().await.unwrap();
    }
}

pub(crate) fn read_all(from: OwnedFd) -> String {
    let mut text = Vec::new();
    // The master of a terminal says EIO when the last one has closed the other end.
    let _ = fs::File::from(from).read_to_end(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// Reads until a text has come.
pub(crate) fn read_until(from: &OwnedFd, text: &str) -> String {
    let mut all = String::new();
    let mut bytes = [0; 4096];
    while !all.contains(text) {
        let mut poll = [nix::poll::PollFd::new(from.as_fd(), nix::poll::PollFlags::POLLIN)];
        assert!(nix::poll::poll(&mut poll, 5000_u16).unwrap() > 0, "no {text:?} in {all:?}");
        let got = nix::unistd::read(from, &mut bytes).unwrap();
        assert!(got > 0, "no {text:?} in {all:?}");
        all.push_str(&String::from_utf8_lossy(&bytes[..got]));
    }
    all
}

/// Options as CRI passes them.
pub(crate) fn options(toml: &str) -> RuntimeOptions {
    use shim_protos::protobuf::Message;
    let mut message = shim_protos::runtimeoptions::Options::new();
    message.config_body = toml.as_bytes().to_vec();
    let value = message.write_to_bytes().unwrap();
    RuntimeOptions { type_url: "runtimeoptions.v1.Options".to_owned(), value }
}
