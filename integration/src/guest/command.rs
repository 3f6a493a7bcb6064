//! Running a program on the host that may take long, and has to end.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::{runner, wait};

/// How much of a log is shown.
const LINES: usize = 25;

/// Runs a program that has to succeed within `limit`; what it says goes to `log`.
///
/// # Errors
/// When it does not, with the last it said.
pub fn run(command: &mut Command, limit: Duration, log: &Path) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let file = File::create(log).with_context(|| format!("create {}", log.display()))?;
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    let mut child = command.spawn().with_context(|| format!("run {program}"))?;
    let ended = wait::until(format_args!("the end of {program}"), limit, || {
        child.try_wait()?.context("it runs")
    });
    if ended.is_err() {
        child.kill()?;
        child.wait()?;
    }
    let status = ended.with_context(|| last_lines(log))?;
    ensure!(status.success(), "{program}: {status}: {}", last_lines(log));
    Ok(())
}

/// The last lines of a log, as far as it can be read.
#[must_use]
pub fn last_lines(log: &Path) -> String {
    let bytes = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    runner::last_lines(&text.replace('\r', ""), LINES)
}
