//! A Create that cannot succeed.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::rc::Rc;

use anyhow::{Result, ensure};
use shim_client::{CallError, Reason};
use ttrpc::Code;

use crate::case::group;
use crate::expect::{code, refused, skip};
use crate::lab::{Ask, Guest, Lab, SOON, eventually, leaks, procs};

group! { "task":
    Must no_such_bundle: "Create in a bundle that does not exist MUST be refused, and leave no task.";
    Must no_spec: "Create without config.json MUST be refused, and leave no task.";
    Must broken_spec: "Create with a config.json that is no JSON MUST be refused, and leave no task.";
    Must missing_program_is_named: "The error about a program that does not exist MUST name it: users see that text.";
    Must failed_create_leaves_nothing: "A failed Create MUST leave no task, no process, no mount and no exit event.";
    Should failed_create_is_silent: "A failed Create SHOULD publish no event at all.";
    Should failed_create_can_be_repeated: "A Create SHOULD succeed after one that failed, once the reason is gone.";
    Must failed_start_can_be_deleted: "A task whose Start failed MUST be deletable.";
}

const MISSING: &str = "/no/such/program";

async fn no_such_bundle(lab: &Lab) -> Result<()> {
    let guest = lab.bare(&["true"]).await?;
    let nowhere = lab.folder.join("nowhere").display().to_string();
    refused(guest.create_with(|request| request.bundle = nowhere).await)?;
    expect_nothing(&guest).await
}

async fn no_spec(lab: &Lab) -> Result<()> {
    let guest = lab.bare(&["true"]).await?;
    fs::remove_file(guest.shim.bundle().config())?;
    refused(guest.create().await)?;
    expect_nothing(&guest).await
}

async fn broken_spec(lab: &Lab) -> Result<()> {
    let guest = lab.bare(&["true"]).await?;
    fs::write(guest.shim.bundle().config(), "{\"process\": ")?;
    refused(guest.create().await)?;
    expect_nothing(&guest).await
}

async fn expect_nothing(guest: &Guest) -> Result<()> {
    code(guest.state("").await, Code::NOT_FOUND)?;
    code(guest.delete("").await, Code::NOT_FOUND)?;
    let mounts = guest.mounts()?;
    ensure!(mounts.is_empty(), "the refused Create leaves mounts: {mounts:?}");
    Ok(())
}

async fn missing_program_is_named(lab: &Lab) -> Result<()> {
    let guest = lab.bare(&[MISSING]).await?;
    // Some runtimes look for the program when it is to be executed, others before.
    let answer = match guest.create().await {
        Ok(_) => guest.start("").await.map(|answer| answer.pid),
        Err(error) => Err(error),
    };
    let error = expect_error(answer)?;
    ensure!(error.contains(MISSING), "the error does not name {MISSING}: {error}");
    Ok(())
}

fn expect_error(answer: Result<u32, CallError>) -> Result<String> {
    match answer {
        Ok(pid) => anyhow::bail!("{MISSING} was started, as process {pid}"),
        Err(CallError { reason: Reason::Refused { message, .. }, .. }) => Ok(message),
        Err(error) => Err(error.into()),
    }
}

/// A shim whose Create has failed for a missing program.
async fn failed(lab: &Lab) -> Result<Rc<Guest>> {
    let guest = lab.bare(&[MISSING]).await?;
    if guest.create().await.is_ok() {
        return skip("this shim looks for the program at Start");
    }
    Ok(guest)
}

async fn failed_create_leaves_nothing(lab: &Lab) -> Result<()> {
    let guest = failed(lab).await?;
    expect_nothing(&guest).await?;
    let own = fs::read_link("/proc/self/ns/pid")?;
    let is_inside = |process: &procs::Process| {
        fs::read_link(format!("/proc/{}/ns/pid", process.pid)).is_ok_and(|other| other != own)
    };
    let gone = || !procs::descendants().iter().any(is_inside);
    ensure!(eventually(SOON, gone).await, "processes of the container: {:?}", procs::descendants());
    let cgroups = leaks::cgroups(&lab.daemon().namespace);
    ensure!(cgroups.is_empty(), "the failed Create leaves cgroups: {cgroups:?}");
    // All events have been sent when the shim has ended.
    guest.shut_down().await?;
    let topics = lab.topics(&guest.id);
    ensure!(!topics.iter().any(|topic| topic == "exit"), "the failed Create published {topics:?}");
    Ok(())
}

async fn failed_create_is_silent(lab: &Lab) -> Result<()> {
    let guest = failed(lab).await?;
    guest.shut_down().await?;
    let topics = lab.topics(&guest.id);
    ensure!(topics.is_empty(), "the failed Create published {topics:?}");
    Ok(())
}

async fn failed_create_can_be_repeated(lab: &Lab) -> Result<()> {
    let guest = failed(lab).await?;
    let mut spec = guest.spec.clone();
    spec["process"]["args"] = serde_json::json!(["true"]);
    fs::write(guest.shim.bundle().config(), spec.to_string())?;
    guest.create().await?;
    guest.start("").await?;
    guest.expect_exit("", 0).await
}

async fn failed_start_can_be_deleted(lab: &Lab) -> Result<()> {
    // A program that is there and cannot be executed: who looks for it at Create finds it.
    let shared = lab.folder.join("shared");
    fs::create_dir_all(&shared)?;
    fs::write(shared.join("garbage"), b"\x7fELF and nothing else")?;
    fs::set_permissions(shared.join("garbage"), Permissions::from_mode(0o755))?;
    let guest = lab.prepare(Ask::new(&["/mnt/garbage"]).sharing(&shared)).await?;
    if let Err(error) = guest.create().await {
        return skip(format!("this shim has found out at Create: {error}"));
    }
    if guest.start("").await.is_ok() {
        // Executed by a runtime of its own, it may end as a program does.
        guest.wait("").await?;
    }
    guest.delete("").await?;
    expect_nothing(&guest).await
}
