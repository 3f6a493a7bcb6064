//! Checkpoint: optional, and refused without harm.

use anyhow::{Result, ensure};
use shim_protos::types::Status;
use ttrpc::Code;

use crate::case::group;
use crate::expect;
use crate::lab::{Guest, Lab, SLEEP};

group! { "checkpoint":
    Must before_create: "Checkpoint without a container MUST be NOT_FOUND, or UNIMPLEMENTED.";
    Must created: "Checkpoint of a container that was not started MUST be refused.";
    Must stopped: "Checkpoint of a container that has ended MUST be refused.";
    Must harmless: "A Checkpoint that fails MUST be refused in time, and not harm the container.";
}

async fn try_it(lab: &Lab, guest: &Guest) -> Result<(), shim_client::CallError> {
    guest.checkpoint(&lab.folder.join("checkpoint").display().to_string()).await.map(drop)
}

async fn before_create(lab: &Lab) -> Result<()> {
    let guest = lab.bare(&SLEEP).await?;
    expect::one_of(try_it(lab, &guest).await, &[Code::NOT_FOUND, Code::UNIMPLEMENTED])
}

async fn created(lab: &Lab) -> Result<()> {
    let guest = lab.created(&["/bin/sh", "-c", "exit 3"]).await?;
    expect::refused(try_it(lab, &guest).await)?;
    guest.expect_status("", Status::CREATED).await?;
    guest.start("").await?;
    guest.expect_exit("", 3).await
}

async fn stopped(lab: &Lab) -> Result<()> {
    let guest = lab.running(&["true"]).await?;
    guest.wait("").await?;
    guest.await_status("", Status::STOPPED).await?;
    expect::refused(try_it(lab, &guest).await)?;
    guest.expect_status("", Status::STOPPED).await
}

async fn harmless(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    let pid = guest.pid().await?;
    match try_it(lab, &guest).await {
        Ok(()) => return expect::skip("the shim made a checkpoint, which is no failure"),
        Err(error) => ensure!(error.code().is_some(), "{error}"),
    }
    guest.expect_status("", Status::RUNNING).await?;
    ensure!(guest.pid().await? == pid, "the container has another pid");
    guest.started("e", &["true"]).await?;
    guest.expect_exit("e", 0).await
}
