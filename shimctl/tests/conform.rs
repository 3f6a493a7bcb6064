//! Our shims keep the contract. The native one: every case of the suite, as under every generation of
//! containerd. Needs root; without it the test says so and passes nothing off as tested.
//!
//! What happens after `start` is the same whoever has asked, but for the version of the service: all
//! cases run as under the oldest and the newest, and as under the others those that differ. A longer
//! run of all is `cargo xtask conform`.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// What this kernel or this shim leaves unasked, by the beginnings of names. Whatever else is skipped
/// is a failure.
const EXPLAINED: &[(&str, &str)] = &[("sandbox.", "the native shim has no sandboxes")];

/// The same for the example with a sandbox.
const EXPLAINED_OF_EXAMPLE: &[(&str, &str)] = &[("sandbox.metrics", "it has no cgroup")];

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
        let shim = native();
        let cases = judge(folder.path(), &shim, generation, filter);
        println!("as {generation}: {} cases", cases.len());
        assert!(cases.len() >= least, "the suite has lost cases: {}", cases.len());
        check(&cases, generation, EXPLAINED);
    }
}

#[test]
fn the_example_with_a_sandbox_keeps_that_part_of_the_contract() {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIPPED: shims make mounts: this needs root");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let shim = built("shim-core", "--example", "examples/containerd-shim-plainpod-v1");
    for generation in ["1.7", "2.0", "2.2", "2.3"] {
        let cases = judge(folder.path(), &shim, generation, &["sandbox."]);
        assert!(cases.len() >= 20, "the suite has lost cases: {}", cases.len());
        check(&cases, generation, EXPLAINED_OF_EXAMPLE);
    }
}

/// Every case has to pass, or be explained.
fn check(cases: &[Value], generation: &str, explained: &[(&str, &str)]) {
    for case in cases {
        let id = format!("{}.{}", case["group"], case["name"]).replace('"', "");
        let why = case["why"].as_str().unwrap_or_default();
        match case["outcome"].as_str().unwrap() {
            "passed" => {}
            "skipped" if explained.iter().any(|(known, _)| id.starts_with(known)) => {
                println!("SKIPPED: {id}: {why}");
            }
            outcome => panic!("as {generation}, {id} {outcome}: {why}"),
        }
    }
}

fn judge(folder: &Path, shim: &Path, generation: &str, filter: &[&str]) -> Vec<Value> {
    let file = folder.join(generation);
    let mut shimctl = Command::new(env!("CARGO_BIN_EXE_shimctl"));
    shimctl.args(["--as", generation, "conform", "--report", "json", "--output"]).arg(&file);
    for part in filter {
        shimctl.args(["--filter", part]);
    }
    // A failure of a case shows in the report, with its name.
    shimctl.arg("--shim").arg(shim).status().unwrap();
    let report = std::fs::read(&file).expect("a report");
    let report: Value = serde_json::from_slice(&report).unwrap();
    report["cases"].as_array().unwrap().clone()
}

/// The shim under test, built.
fn native() -> PathBuf {
    built("shim-runc", "--bin", "containerd-shim-native-v2")
}

/// A program of a package, built: the last part of its path is its name.
fn built(package: &str, kind: &str, path: &str) -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let name = path.rsplit('/').next().unwrap();
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--package", package, kind, name]);
    assert!(build.status().unwrap().success());
    Path::new(env!("CARGO_BIN_EXE_shimctl")).with_file_name(path)
}
