//! apt with a state of its own: other suites' lists never mix with the system's.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result, bail};

use super::{Deb, Suite, remove_dir_all, sources};

/// A private apt, with the package lists of all suites. Gone when dropped.
pub(super) struct Apt {
    dir: PathBuf,
    /// What apt had to say about the lists: a suite that did not come is only a warning to it.
    warnings: String,
}

impl Apt {
    /// Fetches the lists into `dir`.
    pub(super) fn new(dir: &Path) -> Result<Self> {
        remove_dir_all(dir)?;
        for sub in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(dir.join(sub))?;
        }
        let archive = sources::machine_archive();
        let lines = Suite::ALL.map(|suite| archive.line(suite.name())).concat();
        fs::write(dir.join("sources.list"), lines)?;
        let mut apt = Self { dir: dir.to_owned(), warnings: String::new() };
        apt.warnings = apt.get(dir, &["update"]).context("fetch Debian's package lists")?;
        Ok(apt)
    }

    /// Downloads a package and unpacks it into `into`.
    pub(super) fn unpack(&self, deb: Deb, into: &Path) -> Result<()> {
        let download = self.dir.join("download");
        remove_dir_all(&download)?;
        fs::create_dir(&download)?;
        let name = format!("{}/{}", deb.package, deb.suite.name());
        self.get(&download, &["download", &name]).with_context(|| self.warnings.clone())?;
        let entry = fs::read_dir(&download)?.next().context("apt-get downloaded nothing")??;
        run(Command::new("dpkg").arg("-x").arg(entry.path()).arg(into)).map(drop)
    }

    /// Runs apt-get, and returns its warnings.
    fn get(&self, cwd: &Path, args: &[&str]) -> Result<String> {
        let mut command = Command::new("apt-get");
        for (key, sub) in [
            ("Dir::Etc::SourceList", "sources.list"),
            ("Dir::State::Lists", "lists"),
            ("Dir::Cache", "cache"),
        ] {
            let mut option = OsString::from(format!("{key}="));
            option.push(absolute(&self.dir)?.join(sub));
            command.arg("-o").arg(option);
        }
        // apt's own user may not write below a private folder.
        command.args(["-o", "Dir::Etc::SourceParts=/nonexistent", "-o", "APT::Sandbox::User=root"]);
        command.args(["-o", "Acquire::Languages=none", "-o", "Acquire::Retries=3", "-qq"]);
        run(command.args(args).current_dir(cwd))
    }
}

impl Drop for Apt {
    fn drop(&mut self) {
        // What stays behind is removed by the next one.
        let _ = remove_dir_all(&self.dir);
    }
}

fn absolute(path: &Path) -> Result<PathBuf> {
    path.canonicalize().with_context(|| format!("find {}", path.display()))
}

/// Runs a program that has to succeed, and returns what it had to say nevertheless.
fn run(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_owned();
    if env::var_os("LC_ALL").is_none() {
        command.env("LC_ALL", "C.UTF-8");
    }
    let output = command.output().with_context(|| format!("run {}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if !output.status.success() {
        bail!("{}: {}: {text}", program.display(), output.status);
    }
    Ok(text)
}
