//! A seccomp agent: it answers, in the place of the kernel, the system calls that a profile gives to it.
//!
//! The process that loads the filter gets the descriptor that the calls come by, but only the shim may
//! reach the agent's socket. So the process says the descriptor's number by write(2), which no profile
//! may give to an agent, and waits; the shim takes the descriptor out of it, pidfd_getfd(2), and sends it
//! with the container process state of the OCI runtime spec (`config-linux.md`, "Seccomp").

use std::{
    os::fd::{AsFd, OwnedFd, RawFd},
    path::PathBuf,
    time::Duration,
};

use oci_spec::runtime::Spec;
use serde::Serialize;
use shim_core::{
    Context, Error, Kind, Result,
    linux::open_pid,
    model::{Bundle, Pid},
};
use tokio::{
    io::{AsyncWriteExt, Interest},
    net::UnixStream,
};

use super::{
    identity::{Identity, State},
    seccomp, sys,
};
use crate::features::SPEC_VERSION;

/// How long an agent may take to hear of a container. One that hangs would hang the Create as well.
const PATIENCE: Duration = Duration::from_secs(10);

/// The agent of a container's profile.
#[derive(Clone, Debug)]
pub(crate) struct Agent {
    socket: PathBuf,
    metadata: String,
    container: Identity,
}

/// `ContainerProcessState` of the spec.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ProcessState<'a> {
    oci_version: &'a str,
    /// What the descriptors of the message are, in their order.
    fds: [&'a str; 1],
    pid: u32,
    #[serde(skip_serializing_if = "str::is_empty")]
    metadata: &'a str,
    state: State<'a>,
}

impl Agent {
    /// The agent that a spec names, if its profile gives calls to one.
    ///
    /// # Errors
    /// `InvalidArgument` when it gives calls to nobody.
    pub(crate) fn of(spec: &Spec, id: &str, bundle: &Bundle) -> Result<Option<Self>> {
        let profile = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
        let Some(profile) = profile.filter(|profile| seccomp::notifies(profile)) else {
            return Ok(None);
        };
        let socket = profile.listener_path().clone().unwrap_or_default();
        if !socket.is_absolute() {
            let why = "seccomp profile: SCMP_ACT_NOTIFY needs listenerPath, an absolute path";
            return Err(Error::invalid(format!("{why}, not {:?}", socket.display())));
        }
        Ok(Some(Self {
            socket,
            metadata: profile.listener_metadata().clone().unwrap_or_default(),
            container: Identity::of(spec, id, bundle),
        }))
    }

    /// Gives the agent the listener that a process holds under a number. `init` is the container's init
    /// process, when that is another one.
    ///
    /// # Errors
    /// Why the agent did not get it.
    pub(crate) async fn tell(&self, number: RawFd, pid: Pid, init: Option<Pid>) -> Result<()> {
        let told = tokio::time::timeout(PATIENCE, self.send(number, pid, init)).await;
        let told = told.unwrap_or_else(|_| {
            Err(Error::new(Kind::TimedOut, format!("no answer within {PATIENCE:?}")))
        });
        told.with_context(|| format!("tell the seccomp agent at {}", self.socket.display()))
    }

    async fn send(&self, number: RawFd, pid: Pid, init: Option<Pid>) -> Result<()> {
        let listener = take(pid, number).context("take the listener from the process")?;
        let state = serde_json::to_vec(&self.describe(pid, init))?;
        let mut agent = UnixStream::connect(&self.socket).await?;
        let sent = agent
            .async_io(Interest::WRITABLE, || {
                Ok(sys::send_some(agent.as_fd(), &state, &[listener.as_fd()])?)
            })
            .await?;
        Ok(agent.write_all(&state[sent..]).await?)
    }

    fn describe(&self, pid: Pid, init: Option<Pid>) -> ProcessState<'_> {
        let status = if init.is_some() { "running" } else { "creating" };
        ProcessState {
            oci_version: SPEC_VERSION,
            fds: ["seccompFd"],
            pid: pid.get(),
            metadata: &self.metadata,
            state: self.container.state(status, init.or(Some(pid))),
        }
    }
}

/// Takes a descriptor out of a process.
fn take(pid: Pid, number: RawFd) -> Result<OwnedFd> {
    let process = open_pid(pid)?;
    Ok(sys::take_file(process.as_fd(), number)?)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn agent(seccomp: Value) -> Result<Option<Agent>> {
        let spec = json!({ "ociVersion": "1.2.0", "annotations": { "a": "b" },
            "linux": { "seccomp": seccomp } });
        let bundle = Bundle::new("/b").unwrap();
        Agent::of(&serde_json::from_value(spec).unwrap(), "c", &bundle)
    }

    #[test]
    fn an_agent_is_told_which_process_of_which_container_it_is() {
        let told = agent(json!({ "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/agent",
            "listenerMetadata": "mine",
            "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" }] }));
        let agent = told.unwrap().unwrap();
        let pid = |number| Pid::new(number).unwrap();
        let init = serde_json::to_value(agent.describe(pid(7), None)).unwrap();
        let state = |status: &str| {
            json!({ "ociVersion": "1.2.0", "id": "c", "status": status,
            "pid": 7, "bundle": "/b", "annotations": { "a": "b" } })
        };
        assert_eq!(
            init,
            json!({ "ociVersion": SPEC_VERSION, "fds": ["seccompFd"], "pid": 7,
            "metadata": "mine", "state": state("creating") })
        );
        let exec = serde_json::to_value(agent.describe(pid(9), Some(pid(7)))).unwrap();
        assert_eq!(exec["pid"], 9);
        assert_eq!(exec["state"], state("running"));
    }

    #[test]
    fn calls_are_given_to_somebody() {
        let notify = |path: &str| {
            json!({ "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path,
            "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" }] })
        };
        for path in ["", "agent"] {
            let err = agent(notify(path)).unwrap_err();
            assert!(err.to_string().contains("listenerPath"), "{err}");
        }
        // Nobody hears of a profile that needs no agent.
        let quiet = json!({ "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/agent" });
        assert!(agent(quiet).unwrap().is_none());
    }
}
