//! The suite's own test: shims that are wrong in one way each, and the suite has to notice.
//!
//! The broken shim stands in front of our native one. Without a fault it has to pass, so that what
//! fails with one is the fault's doing.

#![expect(clippy::print_stdout, reason = "its output is its report")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use conformance::{Finished, Outcome, Report, Subject, Suite};
use shim_client::{Generation, ShimBinary};

/// Each fault, and a case that has to notice it: at least one a group.
const FAULTS: &[(&str, &str)] = &[
    ("chatter", "bootstrap.answer_is_all_there_is"),
    ("chatty-info", "info.answer_is_one_message"),
    ("always-running", "task.pause_before_start"),
    ("exec-zero", "exec.exit_codes"),
    ("kill-only", "kill.handled"),
    ("no-wait", "wait.before_start"),
    ("exit-twice", "events.life_in_order"),
    ("exit-lost", "events.killed_once"),
    ("output-lost", "stdio.gigabyte_out"),
    ("no-resize", "terminal.resize_before_start"),
    ("one-mount", "rootfs.several_mounts"),
    ("one-mount", "rootfs.placeholders_are_filled"),
    ("opaque-stats", "stats.type_of_the_host"),
    ("no-update", "update.memory"),
    ("no-pause", "pause.stands_still"),
    ("oom-lost", "oom.init"),
    ("checkpoint-hangs", "checkpoint.harmless"),
    ("early-shutdown", "group.shutdown_waits_for_all"),
    ("no-shutdown", "shutdown.ends_after_the_last"),
    ("goes-with-client", "recovery.container_survives"),
    ("lazy-delete", "cleanup.ends_the_container"),
    ("garbage-kills", "input.garbage"),
    ("odd-frame-kills", "wire.response_frame"),
    ("every-delete", "concurrency.deletes"),
    ("exit-twice", "model.short_sequences"),
];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("broken shims: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    // cargo and others ask a test what it has; there is one, and it is run.
    if std::env::args().any(|argument| argument == "--list") {
        println!("broken_shims: test");
        return Ok(());
    }
    conformance::isolate()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let folder = tempfile::Builder::new().prefix("broken").tempdir_in("/run")?;
    let outcome = runtime.block_on(all(folder.path()));
    runtime.shutdown_background();
    outcome
}

async fn all(folder: &Path) -> Result<()> {
    let cases: Vec<String> = FAULTS.iter().map(|(_, case)| (*case).to_owned()).collect();
    let control = judge(folder, "nothing", cases.clone()).await?;
    let unsound: Vec<String> = control.finished.iter().filter_map(failure).collect();
    ensure!(unsound.is_empty(), "without any fault: {}", unsound.join("; "));

    let mut unnoticed = Vec::new();
    for (fault, case) in FAULTS {
        let report = judge(folder, fault, vec![(*case).to_owned()]).await?;
        match report.finished.iter().find_map(failure) {
            Some(how) => println!("{fault:<18} noticed by {how}"),
            None => unnoticed.push(format!("{fault} (by {case}: {report})")),
        }
    }
    ensure!(unnoticed.is_empty(), "nobody noticed: {}", unnoticed.join(", "));
    println!("{} broken shims, all noticed", FAULTS.len());
    Ok(())
}

fn failure(one: &Finished) -> Option<String> {
    match &one.outcome {
        Outcome::Failed(why) => Some(format!("{}: {why}", one.case.id())),
        _ => None,
    }
}

/// Runs cases against a shim with that fault.
async fn judge(folder: &Path, fault: &str, filter: Vec<String>) -> Result<Report> {
    let place = folder.join(format!("{fault}-{}", filter.len()));
    let shim = place.join("containerd-shim-broken-v1");
    // One fault may be for several cases to notice.
    fs::create_dir_all(&place).context("create a folder for the broken shim")?;
    fs::copy(built("examples/containerd-shim-broken-v1")?, &shim).context("copy the shim")?;
    let sound = native()?;
    fs::write(place.join("broken.conf"), format!("{}\n{fault}", sound.display()))?;
    let subject = Subject {
        name: fault.to_owned(),
        binary: ShimBinary::resolve(&shim.display().to_string())?,
        options: None,
    };
    let folder = place.join("suite");
    Suite { subject, generation: Generation::V2_2, filter, folder }.run(&mut |_| ()).await
}

/// The sound shim, built.
fn native() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args([
        "build",
        "--quiet",
        "--package",
        "shim-runc",
        "--bin",
        "containerd-shim-native-v2",
    ]);
    ensure!(build.status()?.success(), "cargo build --package shim-runc failed");
    built("containerd-shim-native-v2")
}

/// Something that cargo has built beside this very test.
fn built(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let target = own.parent().and_then(Path::parent).context("cargo's folder")?;
    let path = target.join(name);
    ensure!(path.exists(), "{} is missing: build the workspace first", path.display());
    Ok(path)
}
