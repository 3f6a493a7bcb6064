//! Placeholder.
use anyhow::Result;
use std::process::ExitCode;
pub(crate) fn bench(_: &[&str]) -> Result<ExitCode> {
    anyhow::bail!("not yet")
}
