//! A sandbox in a shim of its own, and containers in it.

use std::rc::Rc;

use anyhow::{Result, ensure};
use shim_client::{CallError, Reason, Sandbox, Shim, execute};
use shim_protos::Any;
use shim_protos::protobuf::MessageField;
use shim_protos::sandbox::{
    CreateSandboxRequest, SandboxStatusRequest, SandboxStatusResponse, ShutdownSandboxRequest,
    StartSandboxRequest, StartSandboxResponse, StopSandboxRequest, WaitSandboxRequest,
    WaitSandboxResponse,
};
use shim_protos::task::ConnectRequest;
use ttrpc::Code;

use super::{Ask, Guest, Lab, SLEEP, SOON, eventually, procs};
use crate::expect::skip;

/// The annotation that CRI puts on each container of a pod.
const OF_POD: &str = "io.kubernetes.cri.sandbox-id";

/// A shim that was started for a sandbox.
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) id: String,
    pub(crate) shim: Shim,
    pub(crate) sandbox: Sandbox,
    pub(crate) shim_pid: u32,
}

impl Lab {
    /// A shim for a sandbox that is still to be created, in a bundle as CRI makes it: without a
    /// spec. Shims that have no sandboxes skip the case.
    pub(crate) async fn bare_pod(&self) -> Result<Rc<Pod>> {
        self.skip_without_sandboxes().await?;
        let id = self.name("p");
        let parent = self.folder.join(self.generation.sandboxes().unwrap_or("bundles"));
        let bundle = self.bundle_below(&parent, &id, None)?;
        let options = self.subject.options.clone();
        let daemon = self.daemon();
        let shim = Shim::start(&daemon, &self.subject.binary, &bundle, options.as_ref()).await?;
        let request = ConnectRequest { id: id.clone(), ..Default::default() };
        let shim_pid = shim.task.connect(&request).await?.shim_pid;
        let pod = Rc::new(Pod { id, sandbox: shim.sandbox(), shim, shim_pid });
        self.pods.borrow_mut().push(Rc::clone(&pod));
        Ok(pod)
    }

    /// A sandbox that is created.
    pub(crate) async fn created_pod(&self) -> Result<Rc<Pod>> {
        let pod = self.bare_pod().await?;
        pod.create(None).await?;
        Ok(pod)
    }

    /// A sandbox that runs.
    pub(crate) async fn running_pod(&self) -> Result<Rc<Pod>> {
        let pod = self.created_pod().await?;
        pod.start().await?;
        Ok(pod)
    }

    /// A container that runs in a pod.
    pub(crate) async fn run_in(&self, pod: &Pod, args: &[&str]) -> Result<Rc<Guest>> {
        let sandbox = pod.id.clone();
        let ask = Ask::new(args).spec_with(move |spec| spec.annotation(OF_POD, &sandbox));
        let id = self.name("c");
        let spec = ask.spec(self, &id);
        let bundle = self.bundle(&id, Some(&spec))?;
        let shim = Shim::start_in(&pod.shim, &self.daemon(), &self.subject.binary, &bundle).await?;
        let guest = Rc::new(Guest::new(shim, spec, ask, None, self)?);
        self.guests.borrow_mut().push(Rc::clone(&guest));
        guest.create().await?;
        guest.start("").await?;
        Ok(guest)
    }

    /// A new connection to a pod's shim, by what is kept in its bundle.
    pub(crate) async fn rejoin_pod(&self, pod: &Pod) -> Result<Shim> {
        let bundle = pod.shim.bundle();
        let answer = bundle.kept_answer()?;
        Shim::connect(&self.daemon(), &self.subject.binary, bundle, answer).await
    }

    async fn skip_without_sandboxes(&self) -> Result<()> {
        let guest = self.bare(&SLEEP).await?;
        let request = SandboxStatusRequest { sandbox_id: "none".into(), ..Default::default() };
        let answer = guest.shim.sandbox().status(&request).await;
        guest.shut_down().await?;
        match answer {
            Err(error) if error.code() == Some(Code::UNIMPLEMENTED) => {
                skip("the shim has no sandbox service")
            }
            _ => Ok(()),
        }
    }
}

impl Pod {
    pub(crate) fn create_request(&self, options: Option<Any>) -> CreateSandboxRequest {
        CreateSandboxRequest {
            sandbox_id: self.id.clone(),
            bundle_path: self.shim.bundle().path().display().to_string(),
            options: MessageField(options.map(Box::new)),
            ..Default::default()
        }
    }

    pub(crate) async fn create(&self, options: Option<Any>) -> Result<(), CallError> {
        self.sandbox.create(&self.create_request(options)).await.map(drop)
    }

    pub(crate) async fn start(&self) -> Result<StartSandboxResponse, CallError> {
        let request = StartSandboxRequest { sandbox_id: self.id.clone(), ..Default::default() };
        self.sandbox.start(&request).await
    }

    pub(crate) async fn status(&self) -> Result<SandboxStatusResponse, CallError> {
        let request = SandboxStatusRequest { sandbox_id: self.id.clone(), ..Default::default() };
        self.sandbox.status(&request).await
    }

    pub(crate) async fn wait(&self) -> Result<WaitSandboxResponse, CallError> {
        let request = WaitSandboxRequest { sandbox_id: self.id.clone(), ..Default::default() };
        self.sandbox.wait(&request).await
    }

    /// Stops it, without a grace as CRI does.
    pub(crate) async fn stop(&self) -> Result<(), CallError> {
        let request = StopSandboxRequest { sandbox_id: self.id.clone(), ..Default::default() };
        self.sandbox.stop(&request).await.map(drop)
    }

    pub(crate) async fn shutdown(&self) -> Result<(), CallError> {
        let request = ShutdownSandboxRequest { sandbox_id: self.id.clone(), ..Default::default() };
        self.sandbox.shutdown(&request).await.map(drop)
    }

    /// Its state has to be that, by the name that containerd parses.
    pub(crate) async fn expect_state(&self, expected: &str) -> Result<()> {
        let state = self.status().await?.state;
        ensure!(state == expected, "SandboxStatus says {state:?}, expected {expected:?}");
        Ok(())
    }

    /// The shim has to end soon.
    pub(crate) async fn expect_shim_ends(&self) -> Result<()> {
        let gone = || {
            procs::reap();
            !procs::runs(self.shim_pid)
        };
        let pid = self.shim_pid;
        ensure!(
            eventually(SOON, gone).await,
            "the shim still runs after {SOON:?}, as process {pid}"
        );
        Ok(())
    }

    /// Shuts the sandbox down, which has to end the shim.
    pub(crate) async fn end_well(&self) -> Result<()> {
        self.shutdown().await?;
        self.expect_shim_ends().await
    }

    /// Ends all of it, as far as it is still there.
    pub(super) async fn end(&self) {
        if let Err(error) = self.shutdown().await
            && error.reason != Reason::Gone
        {
            log::debug!("end {}: {error}", self.id);
        }
        let shim = &self.shim;
        let delete = execute::delete(shim.daemon(), shim.binary(), shim.bundle());
        if let Err(error) = procs::while_reaping(delete).await {
            log::debug!("end {}: {error:#}", self.id);
        }
        if let Err(error) = shim.bundle().remove() {
            log::warn!("end {}: {error:#}", self.id);
        }
    }
}
