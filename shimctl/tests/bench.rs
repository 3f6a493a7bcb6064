//! `shimctl bench` from end to end, with the native shim twice and figures that mean nothing: every
//! scenario, its reports, and that nothing is left, whatever happens. Needs root; without it each
//! test says so and passes nothing off as tested.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking")]

mod stage;

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use stage::{Stage, text};

/// Two rounds of everything, as small as can be.
const SMALL: &str = "--warm-up 0 --rounds 2 --slow-rounds 2 --gap 5 --count 3 --containers 3 \
                     --bytes 200k --lines 5";

impl Stage {
    fn bench(&self, how: &str) -> Command {
        let mut command = self.command(&["bench"]);
        for name in ["a", "b"] {
            command.arg(format!("--shim={name}={}", self.shim.display()));
        }
        command.args(how.split_whitespace());
        command
    }

    fn run_small(&self, more: &[&str]) -> Output {
        self.bench(SMALL).args(more).output().unwrap()
    }
}

/// How many samples each row has, and at how many steps it was taken.
fn rows(report: &Value) -> BTreeMap<String, (usize, Option<usize>)> {
    let mut rows = BTreeMap::new();
    for scenario in report["scenarios"].as_array().unwrap() {
        for row in scenario["rows"].as_array().unwrap() {
            let shims = row["shims"].as_array().unwrap();
            assert_eq!(shims.iter().map(|shim| &shim["name"]).collect::<Vec<_>>(), ["a", "b"]);
            let samples = |shim: &Value| shim["samples"].as_array().unwrap().len();
            assert_eq!(samples(&shims[0]), samples(&shims[1]), "{row}");
            let name = format!("{}/{}", scenario["name"], row["name"]).replace('"', "");
            rows.insert(name, (samples(&shims[0]), row["at"].as_array().map(Vec::len)));
        }
    }
    rows
}

#[test]
fn every_scenario_is_measured_and_reported() {
    let Some(stage) = Stage::native("bench") else { return };
    let folder = tempfile::tempdir().unwrap();
    let (json, svg) = (folder.path().join("out.json"), folder.path().join("plots"));
    let (json_name, svg_name) = (json.to_str().unwrap(), svg.to_str().unwrap());
    let all = "--scenario=life,idle,many,density,stdio";
    let output = stage.run_small(&[all, "--json", json_name, "--svg", svg_name]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    assert_eq!(report["rounds"], 2);
    let rows = rows(&report);
    for name in [
        "shim start",
        "connect",
        "create",
        "start",
        "exec",
        "exec end",
        "kill",
        "delete",
        "clean up",
        "contract",
        "create + start",
        "whole life",
        "private memory",
        "pss dirty",
        "pss",
    ] {
        assert_eq!(rows.get(&format!("life/{name}")), Some(&(2, None)), "{name}: {rows:?}");
        assert_eq!(rows.get(&format!("idle/{name}")), Some(&(2, None)), "{name}: {rows:?}");
    }
    for (name, expect) in [
        ("many/all running", (2, None)),
        ("many/all gone", (2, None)),
        ("many/running", (3, Some(3))),
        ("density/private memory", (2, Some(2))),
        ("density/threads", (2, Some(2))),
        ("density/create + start", (2, Some(2))),
        ("stdio/stdout time", (2, None)),
        ("stdio/stdin cpu", (2, None)),
        ("stdio/terminal time", (2, None)),
        ("stdio/line", (10, None)),
    ] {
        assert_eq!(rows.get(name), Some(&expect), "{name}: {rows:?}");
    }
    let table = text(&output.stdout);
    assert!(table.contains("| whole life, ms") && table.contains("| pss, KiB"), "{table}");
    for plot in ["life-times", "life-sums", "many-running", "density-pss", "stdio-latency"] {
        let drawn = fs::read_to_string(svg.join(format!("{plot}.svg"))).unwrap();
        assert!(drawn.ends_with("</svg>\n") && !drawn.contains("NaN"), "{plot}: {drawn}");
    }
    assert_nothing_is_kept(stage.root.path());
    stage.check_nothing_is_left();
}

#[test]
fn one_shim_can_have_them_all() {
    let Some(stage) = Stage::native("benchgroup") else { return };
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("out.json");
    let output =
        stage.run_small(&["--scenario=density", "--grouped", "--json", json.to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    let rows = report["scenarios"][0]["rows"].as_array().unwrap();
    let threads = rows.iter().find(|row| row["name"] == "threads").unwrap();
    assert_eq!(threads["at"], serde_json::json!([1, 3]));
    // As many for three containers as for one: it is one shim.
    let samples = &threads["shims"][0]["samples"];
    assert_eq!(samples[0], samples[1], "{threads}");
    stage.check_nothing_is_left();
}

#[test]
fn a_failure_names_shim_scenario_round_and_phase_and_leaves_nothing() {
    let Some(stage) = Stage::native("benchfail") else { return };
    let output = stage.run_small(&["--scenario=many", "--shim=broken=/bin/true"]);
    assert_eq!(output.status.code(), Some(125));
    let said = text(&output.stderr);
    assert!(said.contains("broken, many, round 1: shim start"), "{said}");
    // A root filesystem without programs: the shim starts, the container does not.
    let rootfs = tempfile::tempdir().unwrap();
    let output =
        stage.run_small(&["--scenario=density", "--rootfs", rootfs.path().to_str().unwrap()]);
    let said = text(&output.stderr);
    assert!(said.contains("a, density, round 1: create"), "{said}");
    assert_nothing_is_kept(stage.root.path());
    stage.check_nothing_is_left();
}

#[test]
fn an_interrupt_takes_the_containers_away() {
    let Some(stage) = Stage::native("benchstop") else { return };
    for how in ["idle --gap=1000", "density --containers=500", "stdio --bytes=1000g"] {
        let mut bench = stage.bench(&format!("--scenario={how}"));
        let mut bench = bench.stderr(Stdio::piped()).spawn().unwrap();
        wait_for_container(&stage, &mut bench);
        kill(Pid::from_raw(bench.id().try_into().unwrap()), Signal::SIGINT).unwrap();
        let output = bench.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(125));
        let said = text(&output.stderr);
        assert!(said.contains(": interrupted"), "{said}");
        assert_nothing_is_kept(stage.root.path());
    }
    stage.check_nothing_is_left();
}

/// Until the first container has its cgroup: from here on there is something to be left behind.
fn wait_for_container(stage: &Stage, bench: &mut Child) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let is_there = || {
        let mut own = stage::cgroup_roots().map(|root| root.join(&stage.namespace));
        own.any(|own| {
            let inside = fs::read_dir(own).into_iter().flatten().flatten();
            inside.into_iter().any(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        })
    };
    while !is_there() {
        assert!(Instant::now() < deadline, "no container has come up");
        assert!(bench.try_wait().unwrap().is_none(), "it has ended before");
        std::thread::yield_now();
    }
}

/// Folders may be, but no file of a container or of the bench.
fn assert_nothing_is_kept(root: &Path) {
    let kept: Vec<_> = fs::read_dir(root).unwrap().flatten().map(|entry| entry.path()).collect();
    assert!(kept.is_empty(), "{kept:?}");
}
