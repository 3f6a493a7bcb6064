//! The same life without containerd: its part is played, in its order of calls.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use shim_client::{Bundle, Container, EventServer, Generation, Shim, Store};
use shim_protos::protobuf::MessageField;
use shim_protos::task::{CreateTaskRequest, ShutdownRequest, StartRequest};
use shim_protos::types::Mount;

use super::life::{Clock, Phase, Times};
use super::stage::Draft;
use super::{Stage, Subject};
use crate::isolation;

/// What a shim sees of containerd.
pub(super) struct Daemon {
    daemon: shim_client::Daemon,
    /// Takes the shims' events until it is dropped.
    _events: EventServer,
}

impl Daemon {
    pub(super) async fn play(stage: &Stage) -> Result<Self> {
        let dir = Path::new(isolation::DIR);
        let events = dir.join("alone.sock");
        let server = EventServer::bind(&events).await?;
        let store = Store::open(&dir.join("alone"), &stage.mark)?;
        let daemon = store.daemon(Generation::V2_0, events).context("play containerd")?;
        Ok(Self { daemon, _events: server })
    }

    /// The phases are containerd's: the shim's start is a part of Create, its end one of Delete.
    /// containerd executes the shim's `delete` as well, but lets nobody wait for it.
    pub(super) async fn live(&self, stage: &Stage, subject: &Subject) -> Result<Times> {
        let draft = stage.draft()?;
        let Draft { id, spec, folder, overlay } = &draft;
        let bundles = folder.join("bundles");
        let bundle = Bundle::create(&bundles, id, &folder.join("shim"), Some(spec.json()))?;
        let root = Mount {
            type_: "overlay".to_owned(),
            source: "overlay".to_owned(),
            options: overlay.clone(),
            ..Mount::default()
        };
        let options = subject.message()?;
        let creation = CreateTaskRequest {
            id: id.clone(),
            bundle: bundle.path().display().to_string(),
            rootfs: vec![root],
            options: MessageField(options.clone().map(Box::new)),
            ..Default::default()
        };
        let binary = subject.binary()?;
        let mut clock = Clock::start();
        let shim = Shim::start(&self.daemon, &binary, &bundle, options.as_ref()).await?;
        let container = Container::of_running(shim);
        let mut times = match timed(&container, &creation, &mut clock).await {
            Ok(times) => times,
            Err(error) => {
                // The first failure is the one to tell.
                container.remove_by_force().await.ok();
                return Err(error);
            }
        };
        let shutdown = ShutdownRequest { id: id.clone(), ..Default::default() };
        // It may end faster than its answer travels; whether it has ended is found out below.
        let _ = container.task().shutdown(&shutdown).await;
        times.set(Phase::Delete, clock.lap());
        container.remove_shim().await?;
        bundle.remove()?;
        Ok(times)
    }
}

/// From Create to Delete, whose time goes on until the shim is gone.
async fn timed(
    container: &Container,
    creation: &CreateTaskRequest,
    clock: &mut Clock,
) -> Result<Times> {
    let mut times = Times::default();
    let task = container.task();
    task.create(creation).await?;
    times.set(Phase::Create, clock.lap());
    let waiting = container.wait("");
    task.start(&StartRequest { id: creation.id.clone(), ..Default::default() }).await?;
    times.set(Phase::Start, clock.lap());
    let ended = waiting.await.context("wait")??;
    times.set(Phase::Exit, clock.lap());
    ensure!(ended.exit_status == 0, "true ended with {}", ended.exit_status);
    container.delete_exec("").await?;
    Ok(times)
}
