//! `start`: how a shim comes to be, and what it says.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use shim_client::Answer;
use tokio::net::UnixStream;

use crate::case::group;
use crate::lab::{Ask, Lab};

group! { "bootstrap":
    Must address_is_connectable: "The address that `start` prints MUST be connectable when `start` has ended.";
    Must answer_is_all_there_is: "`start` MUST print its answer and nothing else: containerd reads stdout and stderr as one.";
    Must connect_names_the_shim: "Connect MUST answer before there is a container, with the shim's own pid.";
    Must socket_is_private: "The socket MUST NOT be open to other users.";
}

async fn address_is_connectable(lab: &Lab) -> Result<()> {
    let guest = lab.bare(&["true"]).await?;
    let address = &guest.shim.answer.address;
    let path = address.strip_prefix("unix://").unwrap_or(address);
    UnixStream::connect(path).await.with_context(|| format!("connect to {path}"))?;
    Ok(())
}

async fn answer_is_all_there_is(lab: &Lab) -> Result<()> {
    let bundle = lab.bundle("c", Some(&lab.spec("c", &["true"]).build()))?;
    let started = lab.raw_start(&bundle, lab.start_input("c")?).await?;
    ensure!(started.status.success(), "{}: {}", started.status, started.stderr_text());
    ensure!(started.stderr.is_empty(), "on stderr: {}", started.stderr_text());
    Answer::parse(lab.generation, &started.stdout)?;
    Ok(())
}

async fn connect_names_the_shim(lab: &Lab) -> Result<()> {
    let guest = lab.bare(&["true"]).await?;
    guest.shim_pid().await?;
    ensure!(guest.connect().await?.task_pid == 0, "there is no task yet");
    Ok(())
}

async fn socket_is_private(lab: &Lab) -> Result<()> {
    let guest = lab.prepare(Ask::new(&["true"])).await?;
    let Some(path) = guest.shim.answer.address.strip_prefix("unix://") else {
        return crate::expect::skip("an abstract socket has no mode");
    };
    let mode = std::fs::metadata(path)?.permissions().mode() & 0o777;
    let folder = Path::new(path).parent().context("a folder")?;
    let outer = std::fs::metadata(folder)?.permissions().mode() & 0o777;
    ensure!(mode & 0o077 == 0 || outer & 0o077 == 0, "socket {mode:o} in a folder {outer:o}");
    Ok(())
}
