//! containerd's own command line client, each call with a time limit.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::engine::Engine;
use crate::image;
use crate::session::{self, Output, Session};
use crate::wait;

/// How long one call may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(40);

/// The client of one daemon, in one of its namespaces.
#[derive(Clone, Debug)]
pub struct Ctr {
    program: PathBuf,
    socket: PathBuf,
    namespace: String,
    engine: Engine,
}

impl Ctr {
    pub(crate) fn new(bin: &Path, socket: &Path, namespace: &str, engine: Engine) -> Self {
        let (program, socket) = (bin.join("ctr"), socket.to_owned());
        Self { program, socket, namespace: namespace.to_owned(), engine }
    }

    /// containerd's namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Runs a command whatever its outcome.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn run(&self, args: &[&str]) -> Result<Output> {
        session::run(self.command(args), wait::patient(LIMIT))
    }

    /// Runs a command that has to succeed, and returns its standard output.
    ///
    /// # Errors
    /// When it fails.
    pub fn ok(&self, args: &[&str]) -> Result<String> {
        let output = self.run(args)?;
        let call = args.join(" ");
        ensure!(output.status == 0, "ctr {call}: {}: {}", output.status, output.stderr.trim());
        Ok(output.stdout)
    }

    /// Starts a command beside the test.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self, args: &[&str]) -> Result<Session> {
        Session::start(self.command(args))
    }

    /// Starts a command on a terminal.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_on_terminal(&self, args: &[&str], rows: u16, columns: u16) -> Result<Session> {
        Session::start_on_terminal(self.command(args), rows, columns)
    }

    /// Imports the image [`image::NAME`] from an archive.
    ///
    /// # Errors
    /// When containerd refuses it.
    pub fn import(&self, archive: &Path) -> Result<()> {
        // From 2.1 on the daemon would read the archive itself, and needs to be told how.
        let local: &[&str] = if self.engine == Engine::V2 { &["--local"] } else { &[] };
        let archive = archive.to_string_lossy();
        let output = self.ok(&[&["images", "import"], local, &[&archive]].concat())?;
        ensure!(output.contains(image::NAME), "the import names no {}: {output}", image::NAME);
        Ok(())
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--address").arg(&self.socket);
        command.args(["--namespace", &self.namespace]).args(args);
        command
    }
}
