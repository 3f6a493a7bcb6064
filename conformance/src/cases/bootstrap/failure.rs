//! A `start` that cannot succeed: it says why, and leaves nothing.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use shim_client::{Answer, Generation, Output, execute};

use crate::case::group;
use crate::lab::{Lab, SOON, eventually, procs};

group! { "bootstrap":
    Should namespace_is_needed: "`start` without a namespace SHOULD fail, and say why.";
    Should id_is_needed: "`start` without an id SHOULD fail, and say why.";
    Must no_place_for_a_socket: "`start` MUST fail where it cannot make its socket, say why, and leave no process.";
    Should no_spec_at_start: "`start` without config.json SHOULD work, or fail and say why.";
    Should unknown_action: "An action that the shim does not know SHOULD fail, and say why.";
}

/// It has to have failed, with some words and no process left.
async fn expect_failure(output: &Output) -> Result<()> {
    ensure!(!output.status.success(), "it succeeds, and prints {:?}", text(output));
    ensure!(!text(output).trim().is_empty(), "{}, without a word", output.status);
    let gone = || procs::descendants().iter().all(|process| process.state == 'Z');
    ensure!(eventually(SOON, gone).await, "it leaves processes: {:?}", procs::descendants());
    Ok(())
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), output.stderr_text())
}

/// `start` with these arguments, and the environment of a containerd.
async fn start_with(lab: &Lab, arguments: &[&str]) -> Result<Output> {
    let events = lab.daemon().ttrpc_address;
    let variables = [("TTRPC_ADDRESS", events.to_str().context("a path in UTF-8")?)];
    let (binary, limit) = (&lab.subject.binary, Duration::from_secs(15));
    execute::bare(binary, arguments, &variables, None, limit).await
}

async fn namespace_is_needed(lab: &Lab) -> Result<()> {
    let address = lab.daemon().grpc_address.display().to_string();
    let output = start_with(lab, &["-address", &address, "-id", "c", "start"]).await?;
    expect_failure(&output).await
}

async fn id_is_needed(lab: &Lab) -> Result<()> {
    let address = lab.daemon().grpc_address.display().to_string();
    let arguments = ["-namespace", "conform", "-address", &address, "start"];
    expect_failure(&start_with(lab, &arguments).await?).await
}

async fn no_place_for_a_socket(lab: &Lab) -> Result<()> {
    let bundle = lab.bundle("c", Some(&lab.spec("c", &["true"]).build()))?;
    let place = match lab.daemon().socket_dir {
        Some(folder) if lab.generation >= Generation::V2_3 => folder,
        _ => Path::new("/run/containerd/s").to_owned(),
    };
    fs::write(&place, "in the way").with_context(|| format!("write {}", place.display()))?;
    let started = lab.raw_start(&bundle, lab.start_input("c")?).await;
    fs::remove_file(&place).with_context(|| format!("remove {}", place.display()))?;
    expect_failure(&started?).await
}

async fn no_spec_at_start(lab: &Lab) -> Result<()> {
    let bundle = lab.bundle("c", None)?;
    let started = lab.raw_start(&bundle, lab.start_input("c")?).await?;
    if !started.status.success() {
        return expect_failure(&started).await;
    }
    Answer::parse(lab.generation, &started.stdout)?;
    Ok(())
}

async fn unknown_action(lab: &Lab) -> Result<()> {
    let arguments = ["-namespace", "conform", "-id", "c", "levitate"];
    let output = start_with(lab, &arguments).await?;
    expect_failure(&output).await
}
