//! The native shim keeps the contract: every case of the suite, as under every generation of
//! containerd. Needs root; without it the test says so and passes nothing off as tested.
//!
//! What happens after `start` is the same whoever has asked, but for the version of the service: all
//! cases run as under the oldest and the newest, and as under the others those that differ. A longer
//! run of all is `cargo xtask conform`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// What this kernel or this shim leaves unasked, and why. Whatever else is skipped is a failure.
const EXPLAINED: &[(&str, &str)] = &[];

/// Groups in which a generation's own way of asking shows.
const DIFFERING: &[&str] =
    &["bootstrap.", "info.", "events.", "group.", "shutdown.", "recovery.", "cleanup.", "rootfs."];

#[test]
fn the_native_shim_keeps_the_contract() {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIPPED: shims make mounts, namespaces and cgroups: this needs root");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for (generation, filter, least) in [
        ("1.6", &[][..], 350),
        ("1.7", DIFFERING, 100),
        ("2.0", DIFFERING, 100),
        ("2.2", DIFFERING, 100),
        ("2.3", &[], 350),
    ] {
        let report = judge(folder.path(), generation, filter);
        let cases = report["cases"].as_array().unwrap();
        println!("as {generation}: {} cases", cases.len());
        assert!(cases.len() >= least, "the suite has lost cases: {}", cases.len());
        for case in cases {
            let id = format!("{}.{}", case["group"], case["name"]).replace('"', "");
            let why = case["why"].as_str().unwrap_or_default();
            match case["outcome"].as_str().unwrap() {
                "passed" => {}
                "skipped" if EXPLAINED.iter().any(|(known, _)| *known == id) => {
                    println!("SKIPPED: {id}: {why}");
                }
                outcome => panic!("as {generation}, {id} {outcome}: {why}"),
            }
        }
    }
}

fn judge(folder: &Path, generation: &str, filter: &[&str]) -> Value {
    let file = folder.join(generation);
    let mut shimctl = Command::new(env!("CARGO_BIN_EXE_shimctl"));
    shimctl.args(["--as", generation, "conform", "--report", "json", "--output"]).arg(&file);
    for part in filter {
        shimctl.args(["--filter", part]);
    }
    // A failure of a case shows in the report, with its name.
    shimctl.arg("--shim").arg(native()).status().unwrap();
    serde_json::from_slice(&std::fs::read(&file).expect("a report")).unwrap()
}

/// The shim under test, built.
fn native() -> PathBuf {
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
    assert!(build.status().unwrap().success());
    Path::new(env!("CARGO_BIN_EXE_shimctl")).with_file_name("containerd-shim-native-v2")
}
