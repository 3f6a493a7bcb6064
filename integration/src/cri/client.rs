//! A client of CRI: one call, one connection, so that it outlives any containerd.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use protobuf::Message;
use protobuf::well_known_types::empty::Empty;

use super::config::NAMESPACE;
use crate::grpc::Channel;
use crate::messages::cri as m;
use crate::wait::{self, SOON};

const RUNTIME: &str = "runtime.v1.RuntimeService";
const IMAGE: &str = "runtime.v1.ImageService";

/// A client of one daemon.
#[derive(Clone, Debug)]
pub struct Cri {
    socket: PathBuf,
}

impl Cri {
    /// The client of the daemon at `socket`.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// Asks about pods and containers.
    ///
    /// # Errors
    /// [`crate::grpc::Status`] when containerd refuses.
    pub fn ask<R: Message>(&self, method: &str, request: &impl Message) -> Result<R> {
        self.call(&format!("{RUNTIME}/{method}"), request)
    }

    /// Asks for something to be done that has no answer but that it was done.
    ///
    /// # Errors
    /// See [`Self::ask`].
    pub fn tell(&self, method: &str, request: &impl Message) -> Result<()> {
        self.ask::<Empty>(method, request).map(drop)
    }

    /// Waits until containerd makes pods: it answers before it has a network.
    ///
    /// # Errors
    /// What it still lacks.
    pub fn wait_ready(&self) -> Result<()> {
        wait::until("containerd ready for pods", SOON * 3, || {
            let answer: m::StatusResponse = self.ask("Status", &m::StatusRequest::default())?;
            // Others are about its configuration.
            let lacks = answer.status.conditions.iter().find(|condition| {
                ["RuntimeReady", "NetworkReady"].contains(&condition.type_.as_str())
                    && !condition.status
            });
            ensure!(lacks.is_none(), "{}", lacks.map_or("", |condition| &condition.message));
            Ok(())
        })
    }

    /// Waits until CRI knows an image: it hears of those that others import.
    ///
    /// # Errors
    /// When it does not.
    pub fn wait_image(&self, name: &str) -> Result<()> {
        let image = m::ImageSpec { image: name.to_owned(), ..Default::default() };
        let request = m::ImageStatusRequest { image: Some(image).into(), ..Default::default() };
        wait::until(format_args!("the image {name}"), SOON, || {
            let answer: m::ImageStatusResponse =
                self.call(&format!("{IMAGE}/ImageStatus"), &request)?;
            answer.image.into_option().context("it is not there").map(drop)
        })
    }

    /// The pods of that id, which may be one or none; without an id all of them.
    ///
    /// # Errors
    /// See [`Self::ask`].
    pub fn pods(&self, id: &str) -> Result<Vec<m::Pod>> {
        let filter = m::PodFilter { id: id.to_owned(), ..Default::default() };
        let request = m::ListPodsRequest { filter: Some(filter).into(), ..Default::default() };
        Ok(self.ask::<m::ListPodsResponse>("ListPodSandbox", &request)?.items)
    }

    /// The containers of a pod.
    ///
    /// # Errors
    /// See [`Self::ask`].
    pub fn containers(&self, pod: &str) -> Result<Vec<m::Container>> {
        let filter = m::ContainerFilter { pod_sandbox_id: pod.to_owned(), ..Default::default() };
        let request =
            m::ListContainersRequest { filter: Some(filter).into(), ..Default::default() };
        Ok(self.ask::<m::ListContainersResponse>("ListContainers", &request)?.containers)
    }

    fn call<R: Message>(&self, method: &str, request: &impl Message) -> Result<R> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let channel = Channel::connect(&self.socket, NAMESPACE).await?;
            channel.call(method, request).await
        })
    }
}
