//! The floor: `benches/floor.c`, compiled and run.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use serde_json::Value;

use super::found::{Row, row_of};
use crate::sh;

const SOURCES: [&str; 2] = ["floor.c", "inside.c"];

/// How it is compiled; the page says so, too.
const FLAGS: [&str; 5] = ["-O2", "-Wall", "-Wextra", "-Werror", "-static"];

/// Compiles it.
pub(super) fn compile() -> Result<PathBuf> {
    let floor = sh::target().join("bench/floor");
    fs::create_dir_all(sh::target().join("bench"))?;
    let mut cc = Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()));
    cc.current_dir(sh::root().join("benches")).args(FLAGS).arg("-o").arg(&floor).args(SOURCES);
    sh::run(&mut cc).context("compile the floor; it takes a C compiler: package gcc or clang")?;
    Ok(floor)
}

/// The command line that runs it.
pub(super) fn arguments(rootfs: &Path, rounds: usize, gap: u64) -> Vec<String> {
    let rootfs = rootfs.display().to_string();
    let (rounds, gap) = (rounds.to_string(), gap.to_string());
    ["--rootfs", &rootfs, "--rounds", &rounds, "--gap", &gap].map(str::to_owned).into()
}

/// Takes what several runs of it printed together, in rows like those of `shimctl bench`.
pub(super) fn rows(printed: &[String]) -> Result<Vec<Row>> {
    let mut phases = [Vec::new(), Vec::new()];
    for text in printed {
        let report: Value = serde_json::from_str(text).context("parse what the floor printed")?;
        for (phase, name) in phases.iter_mut().zip(["create", "start"]) {
            let times = report[name].as_array().with_context(|| format!("no {name}"))?;
            phase.extend(times.iter().filter_map(Value::as_f64));
        }
    }
    let [create, start] = phases;
    let both = create.iter().zip(&start).map(|(create, start)| create + start).collect();
    let all = [("create", create), ("start", start), ("create + start", both)];
    Ok(all.map(|(name, samples)| row_of(name, "ms", "floor", samples)).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_taken_together_round_by_round() {
        let printed = ["{\"create\":[2,4],\"start\":[1,1]}", "{\"create\":[9],\"start\":[0.5]}"];
        let rows = rows(&printed.map(str::to_owned)).unwrap();
        let values: Vec<_> = rows.iter().map(|row| row.value("floor").unwrap()).collect();
        assert_eq!(values, [4.0, 1.0, 5.0]);
        assert_eq!(rows[2].shims[0].samples, [3.0, 5.0, 9.5]);
    }

    #[test]
    fn half_a_report_is_none() {
        assert!(rows(&["{\"create\":[1]}".to_owned()]).is_err());
        assert!(rows(&["floor: no".to_owned()]).is_err());
    }
}
