//! The test programs that cargo has built.

use std::env;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// A test program.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Program {
    /// Its name: that of the crate for a library's own tests, with `-bin` for a program's.
    pub name: String,
    /// Where it lies.
    pub path: PathBuf,
}

/// What is built together. With the same selection as `cargo test --workspace` has, nothing of it is
/// left to be built; another one would have other features of the same libraries.
const SELECTION: [&str; 1] = ["--workspace"];

/// Builds all tests of the workspace, and finds them.
///
/// # Errors
/// When this process was not started by cargo, or the build fails.
pub fn tests() -> Result<Vec<Program>> {
    let cargo = env::var_os("CARGO").context("cargo alone can tell where its test programs are")?;
    let mut command = Command::new(cargo);
    command.args(["test", "--no-run", "--quiet", "--message-format=json"]).args(SELECTION);
    command.env("CARGO_TARGET_DIR", crate::target::dir());
    let output = command.stderr(Stdio::inherit()).output().context("run cargo")?;
    ensure!(output.status.success(), "cargo test --no-run: {}", output.status);
    let text = String::from_utf8(output.stdout)?;
    Ok(text.lines().filter_map(program).collect())
}

/// The test program that a line of cargo's tells of.
fn program(line: &str) -> Option<Program> {
    let told: Value = serde_json::from_str(line).ok()?;
    let path = PathBuf::from(told["executable"].as_str()?);
    let name = told["target"]["name"].as_str()?;
    let is_program = told["target"]["kind"].as_array()?.iter().any(|kind| kind == "bin");
    let suffix = if is_program { "-bin" } else { "" };
    told["profile"]["test"].as_bool()?.then(|| Program { name: format!("{name}{suffix}"), path })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_a_test_program_or_none() {
        let line = |kind: &str, test: bool| {
            format!(
                r#"{{"reason":"compiler-artifact","executable":"/t/a-1","profile":{{"test":{test}}},
                "target":{{"name":"a","kind":["{kind}"]}}}}"#
            )
        };
        let named = |text: &str| program(text).map(|program| program.name);
        assert_eq!(named(&line("lib", true)).as_deref(), Some("a"));
        assert_eq!(named(&line("bin", true)).as_deref(), Some("a-bin"));
        assert_eq!(named(&line("bin", false)), None);
        assert_eq!(named(r#"{"reason":"build-finished","success":true}"#), None);
    }
}
