//! The report as plots.

use std::path::Path;

use anyhow::Result;

use super::super::measured::Report;

/// Writes the plots into a directory, which is made if need be.
pub(crate) fn write_plots(report: &Report, folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    log::debug!("{} scenarios", report.scenarios.len());
    Ok(())
}
