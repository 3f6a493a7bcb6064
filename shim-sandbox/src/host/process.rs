//! A process of a guest: its bytes, its size and its end.

use std::time::{Duration, SystemTime};

use shim_core::{
    Kind, Result, Terminal,
    backend::ExitFuture,
    model::{Exit, ExitStatus, Signal, WindowSize},
};
use shim_protos::task::{CloseIORequest, DeleteRequest, ResizePtyRequest, WaitRequest};
use tokio::{sync::watch, time};

use super::{
    agent::{Agent, LONG, SHORT},
    answer,
    kills::Kills,
    pump::{Opened, Pumps},
};

/// How long the end of a container waits for news of wants of memory.
const KILLS_LIMIT: Duration = Duration::from_secs(1);

/// Names a process: of a container, and in it where it is an exec.
#[derive(Clone, Debug)]
pub(super) struct Name {
    pub(super) container: String,
    /// Empty for the init process.
    pub(super) exec: String,
}

/// Begins to move the bytes of a process whose side is open, and returns its terminal.
pub(super) async fn begin(agent: &Agent, opened: Opened, name: &Name) -> (Pumps, Option<Terminal>) {
    if opened.has_input()
        && let Err(err) = release_stdin(agent, name).await
    {
        log::warn!("{err:#}");
    }
    let (pumps, terminal) = opened.run();
    let (agent, name) = (agent.clone(), name.clone());
    let terminal = terminal.map(|stream| Terminal::Remote {
        stream,
        resize: Box::new(move |size| {
            tokio::spawn(resize(agent.clone(), name.clone(), size));
            Ok(())
        }),
    });
    (pumps, terminal)
}

/// Lets a stdin end with its stream: the guest's framework would keep it for other clients.
async fn release_stdin(agent: &Agent, name: &Name) -> Result<()> {
    let request = CloseIORequest {
        id: name.container.clone(),
        exec_id: name.exec.clone(),
        stdin: true,
        ..Default::default()
    };
    let closed = agent.call("release stdin", Some(SHORT), |it, context| async move {
        it.task.close_io(context, &request).await
    });
    closed.await.map(drop)
}

async fn resize(agent: Agent, name: Name, size: WindowSize) {
    let request = ResizePtyRequest {
        id: name.container,
        exec_id: name.exec,
        width: size.width.into(),
        height: size.height.into(),
        ..Default::default()
    };
    let resized = agent.call("resize the terminal", Some(SHORT), |it, context| async move {
        it.task.resize_pty(context, &request).await
    });
    if let Err(err) = resized.await {
        log::warn!("{err:#}");
    }
}

/// The end of a process, told when its output is here, and the wants of memory before it.
pub(super) fn exit(
    agent: Agent,
    name: Name,
    mut pumps: Pumps,
    began: SystemTime,
    kills: Option<watch::Receiver<Kills>>,
) -> ExitFuture {
    Box::pin(async move {
        let exit = wait(&agent, &name, began).await;
        pumps.drained().await;
        if let Some(mut kills) = kills {
            let ended = kills.wait_for(|kills| kills.ended);
            let _unheard = time::timeout(KILLS_LIMIT, ended).await;
        }
        if !name.exec.is_empty()
            && let Err(err) = delete(&agent, &name).await
        {
            log::warn!("{err:#}");
        }
        exit
    })
}

async fn wait(agent: &Agent, name: &Name, began: SystemTime) -> Exit {
    let request = WaitRequest {
        id: name.container.clone(),
        exec_id: name.exec.clone(),
        ..Default::default()
    };
    let waited = agent
        .call("wait", None, |it, context| async move { it.task.wait(context, &request).await });
    match waited.await {
        Ok(said) => answer::exit(said.exit_status, said.exited_at.as_ref(), began),
        // With its machine a process ends as by a kill.
        Err(_) if agent.is_dead() => Exit::now(ExitStatus::Signal(Signal::KILL)),
        Err(err) => {
            log::warn!("wait for a process of {}: {err:#}", name.container);
            Exit::now(ExitStatus::Unknown)
        }
    }
}

/// Deletes a process in the guest. That it is not there is fine.
pub(super) async fn delete(agent: &Agent, name: &Name) -> Result<()> {
    let request = DeleteRequest {
        id: name.container.clone(),
        exec_id: name.exec.clone(),
        ..Default::default()
    };
    let deleted = agent.call("delete", Some(LONG), |it, context| async move {
        it.task.delete(context, &request).await
    });
    match deleted.await {
        Err(err) if err.kind() == Kind::NotFound || agent.is_dead() => Ok(()),
        deleted => deleted.map(drop),
    }
}
