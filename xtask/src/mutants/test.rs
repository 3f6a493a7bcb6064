//! One test of the tree: built, run by its full name, and heard.

use std::{fmt, process::Command};

use anyhow::{Context, Result, bail, ensure};

use super::copy::Copy;

/// A test that hangs has noticed, too.
const SECONDS: &str = "900";

/// What a test says that has noticed nothing.
pub(super) const PASSES: &str = "passes";

/// The longest quotation of a failure.
const LONGEST: usize = 160;

/// A test by its package, its target there (`lib`, or a file of `tests`), and its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Test {
    package: String,
    target: String,
    name: String,
}

/// How a test ended.
pub(super) struct Ended {
    pub(super) passed: bool,
    /// What it said.
    pub(super) how: String,
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.package, self.target, self.name)
    }
}

impl Test {
    pub(super) fn parse(text: &str) -> Result<Self> {
        let words: Vec<_> = text.split(' ').collect();
        let [package, target, name] = words[..] else {
            bail!("{text:?} is no package, target and name");
        };
        let [package, target, name] = [package, target, name].map(str::to_owned);
        Ok(Self { package, target, name })
    }

    /// The name without its modules.
    #[cfg(test)]
    pub(super) fn function(&self) -> &str {
        self.name.rsplit("::").next().unwrap_or_default()
    }

    /// Builds it: what it tests has to compile.
    pub(super) fn build(&self, copy: &Copy) -> Result<()> {
        let mut build = self.cargo(copy);
        // A check that is gone leaves names that nobody uses.
        let output = build.args(["--no-run", "--quiet"]).env("RUSTFLAGS", "-Awarnings").output();
        let output = output.context("run cargo")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{self} does not compile:\n{said}");
        Ok(())
    }

    pub(super) fn run(&self, copy: &Copy) -> Result<Ended> {
        let cargo = self.cargo(copy);
        let mut run = Command::new("timeout");
        run.args(["--kill-after", "9", SECONDS]).arg(cargo.get_program()).args(cargo.get_args());
        for (name, value) in cargo.get_envs() {
            if let Some(value) = value {
                run.env(name, value);
            }
        }
        run.current_dir(cargo.get_current_dir().context("cargo has a directory")?);
        run.args(["--", "--exact", &self.name]);
        run.env("RUSTFLAGS", "-Awarnings").env("RUST_BACKTRACE", "0");
        // A race takes its time to be lost.
        run.env("SHIM_RACE_SECONDS", "30");
        let output = run.output().context("run cargo")?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        // Of the two kinds of runners here, each says "1 passed" in its own line.
        let passed = output.status.success() && said.contains("1 passed");
        let how = if passed { PASSES.to_owned() } else { failure(&said) };
        Ok(Ended { passed, how })
    }

    fn cargo(&self, copy: &Copy) -> Command {
        let mut cargo = copy.cargo();
        cargo.args(["test", "--package", &self.package]);
        match self.target.as_str() {
            "lib" => cargo.arg("--lib"),
            target => cargo.args(["--test", target]),
        };
        cargo
    }
}

/// What a test has panicked with, in one line.
fn failure(said: &str) -> String {
    let mut lines = said.lines().skip_while(|line| !line.contains("panicked at")).skip(1);
    let mut told = lines.next().unwrap_or("no end in time").trim().to_owned();
    let is_side = |line: &&str| line.trim_start().starts_with("left: ");
    if told.starts_with("assertion `left == right`")
        && let Some(left) = lines.next().filter(is_side)
    {
        told = format!("{}: {}", told.trim_start_matches("assertion "), left.trim());
    }
    if told.is_empty() {
        told.push_str("it panics without a word");
    }
    if let Some((end, _)) = told.char_indices().nth(LONGEST) {
        told.truncate(end);
        told.push('…');
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_in_a_line() {
        let said = "running\n\nthread 'main' (1) panicked at a.rs:1:2:\nit was created\nnote: x\n";
        assert_eq!(failure(said), "it was created");
        let said = "thread panicked at a.rs:1:2:\nassertion `left == right` failed\n  left: 1\n right: 2\n";
        assert_eq!(failure(said), "`left == right` failed: left: 1");
        assert_eq!(failure("nothing"), "no end in time");
    }
}
