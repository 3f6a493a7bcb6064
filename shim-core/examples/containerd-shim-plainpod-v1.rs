//! A shim with a sandbox, in little: a pod is a process that sleeps, its containers are plain processes of
//! the host, and all end together. No isolation.
use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::fd::OwnedFd,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use shim_core::{
    Backend, Container, Create, CreateSandbox, Created, Error, Exec, Host, Kind, Process, Result,
    Sandbox, SandboxBackend, SandboxProcess, Streams, Target, linux,
    model::{About, Bundle, ContainerId, Namespace, Pid, Signal},
    oci,
};

/// The shim's pod, if there is one.
#[derive(Default)]
struct PlainPod(Mutex<Option<Arc<Pod>>>);

struct Pod {
    host: Host,
    bundle: Bundle,
    /// What ends with it; none unless it runs.
    processes: Mutex<Option<Vec<OwnedFd>>>,
}

struct Child {
    pod: Arc<Pod>,
    pid: Pid,
    gate: linux::Gate,
}

impl Pod {
    fn spawn(&self, process: &oci::Process, streams: Streams) -> Result<(Process, linux::Gate)> {
        let refused = || Error::new(Kind::FailedPrecondition, "the pod does not run");
        let mut processes = self.processes.lock().expect("nobody panics with it locked");
        let processes = processes.as_mut().ok_or_else(refused)?;
        let (process, gate) = linux::spawn(&self.host.reaper, process, streams)?;
        processes.push(linux::open_pid(process.pid)?);
        Ok((process, gate))
    }

    fn end(&self) {
        let ended = self.processes.lock().expect("nobody panics with it locked").take();
        for process in ended.into_iter().flatten() {
            // Most have ended before.
            let _gone = linux::signal_pidfd(process, Signal::KILL);
        }
    }
}

#[async_trait]
impl Backend for PlainPod {
    type Container = Child;

    fn about(&self) -> About {
        About { name: "io.containerd.plainpod.v1", version: "0.1.0", features: None }
    }

    async fn create(&self, request: Create) -> Result<Created<Child>> {
        let pod = self.0.lock().expect("nobody panics with it locked").clone();
        let pod = pod.ok_or_else(|| Error::new(Kind::FailedPrecondition, "there is no pod"))?;
        // For one who cleans up after the pod: containerd does not ask for each container then.
        let list = pod.bundle.path().join("containers");
        let mut list = OpenOptions::new().create(true).append(true).open(list)?;
        writeln!(list, "{}", request.bundle.path().display())?;
        let process = request.bundle.spec()?.process().clone().unwrap_or_default();
        let (init, gate) = pod.spawn(&process, request.streams)?;
        let container = Child { pod, pid: init.pid, gate };
        Ok(Created { container, init: init.into() })
    }

    fn clean_up(&self, _: &Namespace, _: &ContainerId, bundle: &Bundle) -> Result<()> {
        let list = fs::read_to_string(bundle.path().join("containers")).unwrap_or_default();
        for container in list.lines() {
            linux::kill_recorded(&Bundle::new(container)?)?;
        }
        linux::kill_recorded(bundle)
    }
}

#[async_trait]
impl SandboxBackend for PlainPod {
    async fn create_sandbox(&self, request: CreateSandbox) -> Result<Arc<dyn Sandbox>> {
        let (host, bundle) = (request.host, request.bundle);
        let pod = Arc::new(Pod { host, bundle, processes: Mutex::default() });
        *self.0.lock().expect("nobody panics with it locked") = Some(Arc::clone(&pod));
        Ok(Arc::new(Running(pod)))
    }
}

struct Running(Arc<Pod>);

#[async_trait]
impl Sandbox for Running {
    async fn start(&self) -> Result<SandboxProcess> {
        let null = || File::options().read(true).write(true).open("/dev/null").map(OwnedFd::from);
        let streams = Streams::Pipes { stdin: null()?, stdout: null()?, stderr: null()? };
        let mut sleep = oci::Process::default();
        sleep.set_args(Some(vec!["sleep".into(), "infinity".into()]));
        *self.0.processes.lock().expect("nobody panics with it locked") = Some(Vec::new());
        let (process, gate) = self.0.spawn(&sleep, streams)?;
        gate.open().await?;
        let pod = Arc::clone(&self.0);
        let exit = async move {
            let exit = process.exit.await;
            pod.end();
            exit
        };
        let created_at = SystemTime::now();
        Ok(SandboxProcess { pid: process.pid, exit: Box::pin(exit), created_at, spec: None })
    }

    async fn stop(&self, _: Duration) -> Result<()> {
        self.0.end();
        Ok(())
    }

    async fn delete(&self) -> Result<()> {
        self.0.end();
        Ok(())
    }
}

#[async_trait]
impl Container for Child {
    async fn start(&self) -> Result<()> {
        self.gate.open().await
    }

    async fn kill(&self, target: Target<'_>, signal: Signal) -> Result<()> {
        let pid = if let Target::Exec { pid, .. } = target { pid } else { self.pid };
        linux::signal_pidfd(linux::open_pid(pid)?, signal)
    }

    async fn delete(&self) -> Result<()> {
        Ok(())
    }

    async fn exec(&self, request: Exec) -> Result<Process> {
        let (process, gate) = self.pod.spawn(&request.process, request.streams)?;
        gate.open().await.map(|()| process)
    }
}

fn main() -> std::process::ExitCode {
    shim_core::run_sandbox(PlainPod::default())
}
