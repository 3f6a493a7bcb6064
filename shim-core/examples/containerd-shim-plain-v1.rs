//! A whole shim on one screen: each container is a plain process of the host, with no isolation.
use shim_core::{
    Backend, Container, Create, Created, Exec, Host, Process, Result, Target, linux,
    model::{About, Bundle, ContainerId, Namespace, Pid, Signal},
};

struct Plain;

struct Child {
    host: Host,
    pid: Pid,
    gate: linux::Gate,
}

#[async_trait::async_trait]
impl Backend for Plain {
    type Container = Child;

    fn about(&self) -> About {
        About { name: "io.containerd.plain.v1", version: "0.1.0", features: None }
    }

    async fn create(&self, request: Create) -> Result<Created<Child>> {
        let process = request.bundle.spec()?.process().clone().unwrap_or_default();
        let (init, gate) = linux::spawn(&request.host.reaper, &process, request.streams)?;
        let container = Child { host: request.host, pid: init.pid, gate };
        Ok(Created { container, init: init.into() })
    }

    fn clean_up(&self, _: &Namespace, _: &ContainerId, bundle: &Bundle) -> Result<()> {
        linux::kill_recorded(bundle)
    }
}

#[async_trait::async_trait]
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
        let (process, gate) = linux::spawn(&self.host.reaper, &request.process, request.streams)?;
        gate.open().await.map(|()| process)
    }
}

fn main() -> std::process::ExitCode {
    shim_core::run(Plain)
}
