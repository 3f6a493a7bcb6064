//! Pods in virtual machines under real containerds, made as kubelet makes them: the tests of `cri` that
//! matter most, with the sandbox shim.
//!
//! ```text
//! cargo test -p integration --test vms [-- NAME…]
//! ```
//! Without names each containerd has a pod in each of the ways in which it asks for one. A machine takes
//! seconds where a namespace takes none, so these are few; `NAME` can be any test of `cri`.
#![forbid(unsafe_code)]

#[path = "../cri/life.rs"]
mod life;
#[path = "../cri/output.rs"]
mod output;
#[path = "../cri/resources.rs"]
mod resources;
#[path = "../cri/restart.rs"]
mod restart;
#[path = "../cri/view.rs"]
mod view;

use std::env;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use integration::cri::config::{Runtime, Sandboxer};
use integration::sandbox::{Bed, RUNTIME};

/// What is run by itself: who keeps the sandbox, and which tests.
const USUAL: [(Sandboxer, &[&str]); 2] = [
    (
        Sandboxer::Shim,
        &[
            "engine17::tested::life::a_pod_and_its_containers",
            "engine2::tested::life::a_pod_and_its_containers",
            "engine2::tested::life::a_pod_whose_shim_is_killed",
            "engine2::tested::output::a_command_has_its_streams",
            "engine2::tested::resources::a_container_out_of_memory",
            "engine2::tested::restart::a_pod_outlives_a_crash",
        ],
    ),
    (
        Sandboxer::Podsandbox,
        &[
            "engine16::tested::life::a_pod_and_its_containers",
            "engine17::tested::life::a_container_tells_how",
        ],
    ),
];

fn main() -> ExitCode {
    // A step of a run, or somebody who knows what to run.
    if env::var_os("SHIM_RUNTIME").is_some() {
        let tested = Runtime { handler: "tested", shim: None, sandboxer: Sandboxer::under_test() };
        return integration::runner::main_of_pods(
            &[life::TESTS, view::TESTS, output::TESTS, resources::TESTS, restart::TESTS],
            vec![tested].leak(),
        );
    }
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            integration::runner::say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool> {
    let asked: Vec<String> = env::args().skip(1).collect();
    let bed = Bed::open()?;
    let dir = bed.installed()?;
    let mut all_well = true;
    for (sandboxer, names) in USUAL {
        let mut step = Command::new(env::current_exe().context("find the tests")?);
        step.env("SHIM_RUNTIME", RUNTIME)
            .env("SHIM_DIR", &dir)
            .env("SHIM_SANDBOXER", sandboxer.name())
            .env("SHIM_SANDBOX_CONFIG", dir.join("config.toml"))
            .args(["--test-threads", "2"]);
        match asked.is_empty() {
            true => step.args(names),
            false => step.args(&asked),
        };
        all_well &= step.status().context("run the tests")?.success();
    }
    Ok(all_well)
}
