//! What an ended container allows, until it is deleted.

use std::rc::Rc;

use anyhow::{Result, ensure};
use shim_protos::types::Status;
use ttrpc::Code;

use crate::case::group;
use crate::expect::{code, one_of, refused};
use crate::lab::{Guest, Lab, procs};

group! { "task":
    Must start_after_the_end: "Start of an ended container MUST be refused, and keep how it ended.";
    Must kill_after_the_end: "Kill of an ended container MUST be NOT_FOUND: containerd takes that for success.";
    Should kill_all_after_the_end: "Kill of all processes of an ended container SHOULD succeed or be NOT_FOUND.";
    Must no_new_work_after_the_end: "Pause, Resume and Exec of an ended container MUST be refused.";
    Must wait_again: "Wait MUST answer as often as it is asked after the end, with the same.";
    Must wait_survives_delete: "A Wait that began before Delete MUST get its answer.";
    Must delete_twice: "A second Delete MUST be NOT_FOUND.";
    Must pids_after_the_end: "Pids of an ended container MUST NOT name a process that runs.";
}

async fn ended(lab: &Lab) -> Result<Rc<Guest>> {
    let guest = lab.running(&["sh", "-c", "exit 3"]).await?;
    guest.expect_exit("", 3).await?;
    Ok(guest)
}

async fn start_after_the_end(lab: &Lab) -> Result<()> {
    let guest = ended(lab).await?;
    refused(guest.start("").await)?;
    guest.expect_status("", Status::STOPPED).await?;
    guest.expect_exit("", 3).await
}

async fn kill_after_the_end(lab: &Lab) -> Result<()> {
    code(ended(lab).await?.kill("", 9).await, Code::NOT_FOUND)
}

async fn kill_all_after_the_end(lab: &Lab) -> Result<()> {
    match ended(lab).await?.kill_all(9).await {
        Ok(_) => Ok(()),
        refusal => code(refusal, Code::NOT_FOUND),
    }
}

async fn no_new_work_after_the_end(lab: &Lab) -> Result<()> {
    let guest = ended(lab).await?;
    refused(guest.pause().await)?;
    refused(guest.resume().await)?;
    refused(guest.exec("e1", &["true"]).await)?;
    guest.expect_status("", Status::STOPPED).await
}

async fn wait_again(lab: &Lab) -> Result<()> {
    let guest = ended(lab).await?;
    let first = guest.wait("").await?;
    for _ in 0..3 {
        let again = guest.wait("").await?;
        ensure!(again == first, "Wait answers {first:?}, then {again:?}");
    }
    Ok(())
}

async fn wait_survives_delete(lab: &Lab) -> Result<()> {
    let guest = lab.running(&["sleep", "1000"]).await?;
    let waiting: Vec<_> = (0..10).map(|_| guest.waiting("")).collect();
    // State goes through the same connection behind them: the shim has them by now.
    guest.expect_status("", Status::RUNNING).await?;
    guest.kill("", 9).await?;
    guest.await_status("", Status::STOPPED).await?;
    guest.delete("").await?;
    for one in waiting {
        let status = one.await??.exit_status;
        ensure!(status == 137, "Wait tells exit status {status}, expected 137");
    }
    Ok(())
}

async fn delete_twice(lab: &Lab) -> Result<()> {
    let guest = ended(lab).await?;
    guest.delete("").await?;
    code(guest.delete("").await, Code::NOT_FOUND)
}

async fn pids_after_the_end(lab: &Lab) -> Result<()> {
    match ended(lab).await?.pids().await {
        Ok(told) => {
            // That an ended process is still named lets containerd find its exit status when it
            // comes back: it takes a container without processes for a leftover.
            let alive = told.processes.iter().filter(|process| procs::runs(process.pid)).count();
            ensure!(alive == 0, "Pids names {alive} processes that run");
        }
        refusal => one_of(refusal, &[Code::NOT_FOUND])?,
    }
    Ok(())
}
