//! `cargo xtask fuzz`: a fuzz target for a while, on the stable toolchain.
//!
//! What the coverage-guided fuzzer needs of the compiler is a pass of LLVM's, which the stable one has
//! too; the address sanitizer alone asks for a nightly, and the code behind these doors is safe Rust.

use std::{
    fs,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, ensure};

use crate::sh;

/// One target's name a file of this folder.
const TARGETS: &str = "fuzz/targets";

/// The machine that the counters are built for; naming it keeps them out of build scripts.
const TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// What libFuzzer needs to see.
const FLAGS: &str = "--cfg fuzzing -Ccodegen-units=1 -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";

/// Runs a target, or each of them, for so many seconds.
pub(crate) fn fuzz(arguments: &[&str]) -> Result<ExitCode> {
    let all = targets()?;
    let (chosen, seconds) = match arguments {
        [] => (all.clone(), "60"),
        [target] => (vec![(*target).to_owned()], "60"),
        [target, seconds, ..] => (vec![(*target).to_owned()], *seconds),
    };
    let known = |target: &&String| target.as_str() == "all" || all.contains(target);
    let unknown = chosen.iter().find(|target| !known(target));
    ensure!(unknown.is_none(), "no target {unknown:?}: choose all, or one of {all:?}");
    let chosen = if chosen.iter().any(|target| target == "all") { all } else { chosen };

    let folder = sh::target().join("fuzz");
    let mut build = sh::cargo();
    build.args(["build", "--release", "--target", TRIPLE, "--manifest-path", "fuzz/Cargo.toml"]);
    sh::run(build.env("RUSTFLAGS", FLAGS).env("CARGO_TARGET_DIR", &folder))?;
    for target in chosen {
        // New inputs are found again tomorrow; the corpus in the repository stays small by hand.
        let found = folder.join("corpus").join(&target);
        fs::create_dir_all(&found).with_context(|| format!("create {}", found.display()))?;
        let mut fuzzer = Command::new(folder.join(TRIPLE).join("release").join(&target));
        fuzzer.arg(&found).arg(sh::root().join("fuzz/corpus").join(&target));
        fuzzer.arg(format!("-max_total_time={seconds}")).arg("-print_final_stats=1");
        fuzzer.arg(format!("-artifact_prefix={}/", folder.display()));
        println!("== {target}");
        sh::run(&mut fuzzer)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn targets() -> Result<Vec<String>> {
    let folder = sh::root().join(TARGETS);
    let files = fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))?;
    let mut names = Vec::new();
    for file in files {
        let name = file?.file_name().to_string_lossy().into_owned();
        names.extend(name.strip_suffix(".rs").map(str::to_owned));
    }
    names.sort();
    Ok(names)
}
