//! Calls about added processes that have to be refused, with nothing broken by them.

use anyhow::{Context, Result, ensure};
use shim_client::CallError;
use shim_protos::Any;
use shim_protos::protobuf::MessageField;
use shim_protos::types::Status;
use ttrpc::Code;

use crate::case::group;
use crate::expect;
use crate::lab::signals::{KILL, TERM, status_of};
use crate::lab::{Guest, Lab, SLEEP, process_any};

group! { "exec":
    Must duplicate_id: "Exec with an id that is taken MUST be ALREADY_EXISTS, and leave the first alone.";
    Should empty_id: "Exec with an empty id SHOULD be refused: it names the init process.";
    Must nil_spec: "Exec without a spec MUST be refused, and not end the shim.";
    Must bad_json: "Exec with a spec that is no JSON MUST be refused, and not end the shim.";
    Must empty_args: "An exec with nothing to execute MUST be refused by Exec or Start.";
    Must unknown_exec: "Calls for an exec that does not exist MUST be NOT_FOUND.";
    Must kill_before_start: "Kill of an exec that was not started MUST be refused.";
    Should kill_before_start_code: "Kill of an exec that was not started SHOULD be FAILED_PRECONDITION.";
    Must start_twice: "A second Start of an exec MUST be refused.";
    Must start_twice_is_harmless: "A second Start of an exec MUST NOT add an exit event, nor end the shim later.";
    Must start_after_its_end: "Start of an exec that has ended MUST be refused.";
    Must unknown_binary_is_refused: "Start of an exec whose program does not exist MUST be refused, naming it.";
    Should unknown_binary_is_not_created: "An exec whose Start failed SHOULD NOT stay CREATED.";
    Must unknown_binary_is_deletable: "Delete of an exec whose Start failed MUST succeed; it MUST NOT have an exit event.";
    Must delete_running: "Delete of a running exec MUST be refused, and leave it running.";
    Must on_paused: "Exec in a paused container MUST be refused.";
    Must on_stopped: "Exec in a container that has ended MUST be refused.";
    Must start_after_init: "Start of an exec MUST be refused when the container has ended.";
    Should start_after_init_code: "Start of an exec in an ended container SHOULD be FAILED_PRECONDITION.";
}

async fn duplicate_id(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    let pid = guest.started("e", &SLEEP).await?;
    expect::code(guest.exec("e", &["true"]).await, Code::ALREADY_EXISTS)?;
    let state = guest.state("e").await?;
    ensure!(state.pid == pid, "the first exec had pid {pid}, now {}", state.pid);
    guest.expect_status("e", Status::RUNNING).await?;
    guest.kill("e", KILL).await?;
    guest.wait("e").await?;
    guest.delete("e").await?;
    Ok(())
}

async fn empty_id(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    expect::refused(guest.exec("", &["true"]).await)
}

/// An Exec with that spec has to be refused, and the shim has to serve as before.
async fn refused_spec(lab: &Lab, spec: Option<Any>) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    let answer =
        guest.exec_with("e", &[], |request| request.spec = MessageField(spec.map(Box::new))).await;
    expect::refused(answer)?;
    expect::code(guest.state("e").await, Code::NOT_FOUND)?;
    works(&guest).await
}

async fn works(guest: &Guest) -> Result<()> {
    let works = async {
        guest.started("after", &["true"]).await?;
        guest.expect_exit("after", 0).await?;
        guest.delete("after").await?;
        anyhow::Ok(())
    };
    works.await.context("an exec afterwards")
}

async fn nil_spec(lab: &Lab) -> Result<()> {
    refused_spec(lab, None).await
}

async fn bad_json(lab: &Lab) -> Result<()> {
    let mut spec = process_any(&serde_json::Value::Null);
    spec.value = b"{\"args\": [".to_vec();
    refused_spec(lab, Some(spec)).await
}

async fn empty_args(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    expect::refused(guest.started("e", &[]).await)?;
    works(&guest).await
}

async fn unknown_exec(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    expect::code(guest.state("no").await, Code::NOT_FOUND)?;
    expect::code(guest.start("no").await, Code::NOT_FOUND)?;
    expect::code(guest.kill("no", TERM).await, Code::NOT_FOUND)?;
    expect::code(guest.delete("no").await, Code::NOT_FOUND)?;
    expect::code(guest.resize("no", 80, 24).await, Code::NOT_FOUND)?;
    // containerd's own shim hides the kind of this one.
    expect::refused(guest.close_stdin("no").await)?;
    guest.expect_status("", Status::RUNNING).await
}

async fn killed_before_start(lab: &Lab) -> Result<Result<(), CallError>> {
    let guest = lab.running(&SLEEP).await?;
    guest.exec("e", &SLEEP).await?;
    let answer = guest.kill("e", KILL).await.map(drop);
    guest.expect_status("", Status::RUNNING).await?;
    guest.delete("e").await?;
    Ok(answer)
}

async fn kill_before_start(lab: &Lab) -> Result<()> {
    expect::refused(killed_before_start(lab).await?)
}

async fn kill_before_start_code(lab: &Lab) -> Result<()> {
    expect::code(killed_before_start(lab).await?, Code::FAILED_PRECONDITION)
}

async fn start_twice(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    let pid = guest.started("e", &SLEEP).await?;
    expect::refused(guest.start("e").await)?;
    let state = guest.state("e").await?;
    ensure!(state.pid == pid, "the exec had pid {pid}, now {}", state.pid);
    guest.expect_status("e", Status::RUNNING).await?;
    guest.kill("e", KILL).await?;
    guest.expect_exit("e", status_of(KILL)).await?;
    guest.delete("e").await?;
    Ok(())
}

async fn start_twice_is_harmless(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    guest.started("e", &SLEEP).await?;
    expect::refused(guest.start("e").await)?;
    guest.kill("e", KILL).await?;
    guest.wait("e").await?;
    guest.kill_and_wait().await.context("the init's end, after the exec's")?;
    lab.expect_topic(&guest.id, "exit").await?;
    let exits = lab.count_topic(&guest.id, "exit e");
    ensure!(exits == 1, "{exits} exit events of one exec");
    guest.delete("").await?;
    Ok(())
}

async fn start_after_its_end(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    guest.started("e", &["/bin/sh", "-c", "exit 3"]).await?;
    guest.wait("e").await?;
    expect::refused(guest.start("e").await)?;
    guest.expect_exit("e", 3).await?;
    guest.delete("e").await?;
    Ok(())
}

const MISSING: [&str; 1] = ["/no/such/program"];

async fn unknown_binary_is_refused(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    guest.exec("e", &MISSING).await?;
    let answer = guest.start("e").await;
    let text = answer.as_ref().err().map(ToString::to_string).unwrap_or_default();
    expect::refused(answer)?;
    ensure!(text.contains(MISSING[0]), "the error does not name the program: {text}");
    guest.delete("e").await?;
    works(&guest).await
}

async fn unknown_binary_is_not_created(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    expect::refused(guest.started("e", &MISSING).await)?;
    guest.await_status("e", Status::STOPPED).await?;
    guest.delete("e").await?;
    Ok(())
}

async fn unknown_binary_is_deletable(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    expect::refused(guest.started("e", &MISSING).await)?;
    guest.delete("e").await?;
    expect::code(guest.state("e").await, Code::NOT_FOUND)?;
    guest.kill_and_wait().await?;
    lab.expect_topic(&guest.id, "exit").await?;
    let exits = lab.count_topic(&guest.id, "exit e");
    ensure!(exits == 0, "an exit event of an exec that never ran");
    Ok(())
}

async fn delete_running(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    guest.started("e", &SLEEP).await?;
    expect::refused(guest.delete("e").await)?;
    guest.expect_status("e", Status::RUNNING).await?;
    guest.kill("e", KILL).await?;
    guest.expect_exit("e", status_of(KILL)).await?;
    guest.delete("e").await?;
    Ok(())
}

async fn on_paused(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    expect::optional(guest.pause().await)?;
    expect::refused(guest.started("e", &["true"]).await)?;
    guest.resume().await?;
    works(&guest).await
}

async fn on_stopped(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    guest.kill_and_wait().await?;
    expect::refused(guest.exec("e", &["true"]).await)
}

async fn started_after_init(lab: &Lab) -> Result<Result<u32, CallError>> {
    let guest = lab.running(&SLEEP).await?;
    guest.exec("e", &["true"]).await?;
    guest.kill_and_wait().await?;
    Ok(guest.start("e").await.map(|answer| answer.pid))
}

async fn start_after_init(lab: &Lab) -> Result<()> {
    expect::refused(started_after_init(lab).await?)
}

async fn start_after_init_code(lab: &Lab) -> Result<()> {
    expect::code(started_after_init(lab).await?, Code::FAILED_PRECONDITION)
}
