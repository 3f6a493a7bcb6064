//! What the host asks of the guest beside the task service.

use async_trait::async_trait;
use shim_core::{Error, Kind, Result, model::ContainerId};
use shim_protos::guest::{
    Guest, HelloRequest, HelloResponse, MakeBundleRequest, MakeBundleResponse, OnlineRequest,
    OnlineResponse, OutOfMemoryRequest, OutOfMemoryResponse, PowerOffRequest, PowerOffResponse,
    RemoveBundleRequest, RemoveBundleResponse, SetTimeRequest, SetTimeResponse, SetupRequest,
    SetupResponse, StatsRequest, StatsResponse,
};
use tokio::sync::{Mutex, watch};
use ttrpc::r#async::TtrpcContext;

use super::{Ground, bundle, memory::Kills, places::Places, setup, usage};
use crate::Build;

/// The service of one guest.
pub(super) struct GuestService {
    places: Places,
    ground: Ground,
    kills: Kills,
    power_off: watch::Sender<bool>,
    /// Whether the pod is set up: that is done once.
    is_set_up: Mutex<bool>,
}

impl GuestService {
    pub(super) fn new(
        places: Places,
        ground: Ground,
        kills: Kills,
        power_off: watch::Sender<bool>,
    ) -> Self {
        Self { places, ground, kills, power_off, is_set_up: Mutex::default() }
    }

    async fn set_up(&self, request: &SetupRequest) -> Result<()> {
        let mut is_set_up = self.is_set_up.lock().await;
        if *is_set_up {
            return Err(Error::new(Kind::FailedPrecondition, "the guest is set up already"));
        }
        // One that failed is not tried again: half of it is done.
        *is_set_up = true;
        setup::set_up(&self.places, request, self.ground).await
    }
}

#[async_trait]
impl Guest for GuestService {
    async fn hello(&self, _: &TtrpcContext, request: HelloRequest) -> ttrpc::Result<HelloResponse> {
        let hello = usage::hello()?;
        Build::own()?.check(&request.build)?;
        Ok(HelloResponse { root: self.places.root().display().to_string(), ..hello })
    }

    async fn setup(&self, _: &TtrpcContext, request: SetupRequest) -> ttrpc::Result<SetupResponse> {
        self.set_up(&request).await?;
        Ok(SetupResponse::new())
    }

    async fn make_bundle(
        &self,
        _: &TtrpcContext,
        request: MakeBundleRequest,
    ) -> ttrpc::Result<MakeBundleResponse> {
        Ok(bundle::make(&self.places, &request)?)
    }

    async fn remove_bundle(
        &self,
        _: &TtrpcContext,
        request: RemoveBundleRequest,
    ) -> ttrpc::Result<RemoveBundleResponse> {
        bundle::remove(&self.places, &request.id)?;
        Ok(RemoveBundleResponse::new())
    }

    async fn out_of_memory(
        &self,
        _: &TtrpcContext,
        request: OutOfMemoryRequest,
    ) -> ttrpc::Result<OutOfMemoryResponse> {
        let id = ContainerId::parse(&request.id).map_err(Error::from)?;
        let seen = self.kills.beyond(&id, request.told).await?;
        Ok(OutOfMemoryResponse { count: seen.count, ended: seen.ended, ..Default::default() })
    }

    async fn online(
        &self,
        _: &TtrpcContext,
        request: OnlineRequest,
    ) -> ttrpc::Result<OnlineResponse> {
        Ok(usage::online(request.processors, self.ground)?)
    }

    async fn set_time(
        &self,
        _: &TtrpcContext,
        request: SetTimeRequest,
    ) -> ttrpc::Result<SetTimeResponse> {
        setup::set_time(request.time, self.ground)?;
        Ok(SetTimeResponse::new())
    }

    async fn stats(&self, _: &TtrpcContext, _: StatsRequest) -> ttrpc::Result<StatsResponse> {
        Ok(usage::stats()?)
    }

    async fn power_off(
        &self,
        _: &TtrpcContext,
        _: PowerOffRequest,
    ) -> ttrpc::Result<PowerOffResponse> {
        nix::unistd::sync();
        self.power_off.send_replace(true);
        Ok(PowerOffResponse::new())
    }
}
