//! The sandbox service: the pod that the shim's containers live in.

use std::{collections::HashMap, path::PathBuf, sync::Arc, time::Duration, time::SystemTime};

use async_trait::async_trait;
use shim_protos::{
    Any,
    protobuf::MessageField,
    sandbox::{
        CreateSandboxRequest, CreateSandboxResponse, PingRequest, PingResponse, PlatformRequest,
        PlatformResponse, Sandbox, SandboxMetricsRequest, SandboxMetricsResponse,
        SandboxStatusRequest, SandboxStatusResponse, ShutdownSandboxRequest,
        ShutdownSandboxResponse, StartSandboxRequest, StartSandboxResponse, StopSandboxRequest,
        StopSandboxResponse, WaitSandboxRequest, WaitSandboxResponse, create_sandbox,
    },
    types::{self, Metric},
};
use ttrpc::r#async::{Service, TtrpcContext};

use super::{convert, stats, task::detached};
use crate::{
    backend::SandboxBackend,
    error::{Error, Result},
    lifecycle::{CreatePod, Pod, Pods},
    model::{Bundle, ContainerId, Pid, RuntimeOptions},
};

/// containerd parses these two by name; everything else is unknown to it.
const READY: &str = "SANDBOX_READY";
const NOT_READY: &str = "SANDBOX_NOTREADY";

/// What clients without a pod's config send in its place.
const EMPTY: &str = "google.protobuf.Empty";

/// An OCI spec in an `Any`.
const SPEC: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";

struct SandboxService<B: SandboxBackend> {
    pods: Arc<Pods<B>>,
}

/// The service by its name.
pub(crate) fn sandbox_service<B: SandboxBackend>(pods: Pods<B>) -> HashMap<String, Service> {
    create_sandbox(Arc::new(SandboxService { pods: Arc::new(pods) }))
}

impl<B: SandboxBackend> SandboxService<B> {
    fn pod(&self, id: &str) -> Result<Arc<Pod>> {
        self.pods.find(&ContainerId::parse(id)?)
    }
}

#[async_trait]
impl<B: SandboxBackend> Sandbox for SandboxService<B> {
    async fn create_sandbox(
        &self,
        _: &TtrpcContext,
        request: CreateSandboxRequest,
    ) -> ttrpc::Result<CreateSandboxResponse> {
        let (create, pods) = (parse_create(request)?, Arc::clone(&self.pods));
        detached(async move { pods.create(create).await }).await?;
        Ok(CreateSandboxResponse::new())
    }

    async fn start_sandbox(
        &self,
        _: &TtrpcContext,
        request: StartSandboxRequest,
    ) -> ttrpc::Result<StartSandboxResponse> {
        let id = ContainerId::parse(&request.sandbox_id).map_err(Error::from)?;
        let pods = Arc::clone(&self.pods);
        let started = detached(async move { pods.start(&id).await }).await?;
        let spec =
            started.spec.as_ref().map(serde_json::to_vec).transpose().map_err(Error::from)?;
        let spec = spec.map(|value| Any { type_url: SPEC.to_owned(), value, ..Default::default() });
        Ok(StartSandboxResponse {
            pid: started.pid.get(),
            created_at: MessageField::some(convert::timestamp(started.at)),
            spec: spec.into(),
            ..Default::default()
        })
    }

    async fn platform(
        &self,
        _: &TtrpcContext,
        request: PlatformRequest,
    ) -> ttrpc::Result<PlatformResponse> {
        let platform = self.pod(&request.sandbox_id)?.platform();
        let platform = types::Platform {
            os: platform.os,
            architecture: platform.architecture,
            variant: platform.variant,
            ..Default::default()
        };
        Ok(PlatformResponse { platform: MessageField::some(platform), ..Default::default() })
    }

    async fn stop_sandbox(
        &self,
        _: &TtrpcContext,
        request: StopSandboxRequest,
    ) -> ttrpc::Result<StopSandboxResponse> {
        let pod = self.pod(&request.sandbox_id)?;
        let grace = Duration::from_secs(request.timeout_secs.into());
        detached(async move { pod.stop(grace).await }).await?;
        Ok(StopSandboxResponse::new())
    }

    async fn wait_sandbox(
        &self,
        _: &TtrpcContext,
        request: WaitSandboxRequest,
    ) -> ttrpc::Result<WaitSandboxResponse> {
        let exit = self.pod(&request.sandbox_id)?.wait().await;
        Ok(WaitSandboxResponse {
            exit_status: exit.status.wire(),
            exited_at: MessageField::some(convert::timestamp(exit.at)),
            ..Default::default()
        })
    }

    async fn sandbox_status(
        &self,
        _: &TtrpcContext,
        request: SandboxStatusRequest,
    ) -> ttrpc::Result<SandboxStatusResponse> {
        let pod = self.pod(&request.sandbox_id)?;
        let state = pod.state();
        let exited_at = state.exit().map(|exit| convert::timestamp(exit.at));
        Ok(SandboxStatusResponse {
            sandbox_id: request.sandbox_id,
            pid: state.pid().map_or(0, Pid::get),
            state: if state.is_ready() { READY } else { NOT_READY }.to_owned(),
            info: if request.verbose { pod.info() } else { HashMap::new() },
            created_at: MessageField::some(convert::timestamp(pod.created_at())),
            exited_at: exited_at.into(),
            ..Default::default()
        })
    }

    async fn ping_sandbox(
        &self,
        _: &TtrpcContext,
        request: PingRequest,
    ) -> ttrpc::Result<PingResponse> {
        self.pod(&request.sandbox_id)?.ping().await?;
        Ok(PingResponse::new())
    }

    async fn shutdown_sandbox(
        &self,
        _: &TtrpcContext,
        request: ShutdownSandboxRequest,
    ) -> ttrpc::Result<ShutdownSandboxResponse> {
        let id = ContainerId::parse(&request.sandbox_id).map_err(Error::from)?;
        let pods = Arc::clone(&self.pods);
        detached(async move { pods.shut_down(&id).await }).await?;
        Ok(ShutdownSandboxResponse::new())
    }

    async fn sandbox_metrics(
        &self,
        _: &TtrpcContext,
        request: SandboxMetricsRequest,
    ) -> ttrpc::Result<SandboxMetricsResponse> {
        let counted = self.pod(&request.sandbox_id)?.stats().await?;
        let metrics = Metric {
            timestamp: MessageField::some(convert::timestamp(SystemTime::now())),
            id: request.sandbox_id,
            data: MessageField::some(stats::to_any(counted)),
            ..Default::default()
        };
        Ok(SandboxMetricsResponse { metrics: MessageField::some(metrics), ..Default::default() })
    }
}

fn parse_create(request: CreateSandboxRequest) -> Result<CreatePod> {
    let netns = Some(request.netns_path).filter(|path| !path.is_empty()).map(PathBuf::from);
    if let Some(path) = netns.as_ref().filter(|path| !path.is_absolute()) {
        return Err(Error::invalid(format!("network namespace {path:?} is not absolute")));
    }
    Ok(CreatePod {
        id: ContainerId::parse(&request.sandbox_id)?,
        bundle: Bundle::new(request.bundle_path)?,
        rootfs: request.rootfs.iter().map(convert::mount).collect(),
        config: config(request.options.as_ref()),
        netns,
        annotations: request.annotations,
    })
}

/// `Empty` is none, under whichever prefix.
fn config(options: Option<&Any>) -> Option<RuntimeOptions> {
    convert::options(options)
        .filter(|options| options.type_url.rsplit('/').next().is_none_or(|name| name != EMPTY))
}

#[cfg(test)]
mod tests;
