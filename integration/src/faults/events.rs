//! The events service of containerd, in a process of its own: one that can be killed and stopped.
//!
//! It is this executable again, told so by a variable of the environment, and prints a line of
//! JSON for each event.

use std::env;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use shim_client::EventServer;

use crate::session::Session;
use crate::wait::{self, SOON};

const SOCKET: &str = "FAULTS_EVENTS";
const READY: &str = "ready";

/// Serves events, if this process was started for that; returns when it cannot go on.
///
/// # Errors
/// When the socket cannot be had.
pub fn serve() -> Option<Result<()>> {
    let path = env::var_os(SOCKET)?;
    Some(print(Path::new(&path)))
}

fn print(path: &Path) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut server = EventServer::bind(path).await?;
        let mut out = io::stdout().lock();
        writeln!(out, "{READY}")?;
        loop {
            out.flush()?;
            for event in server.take().await {
                writeln!(out, "{}", event.to_json())?;
            }
        }
    })
}

/// The process and what it has heard, also from those before it.
#[derive(Debug)]
pub struct Ear {
    path: PathBuf,
    session: Session,
    before: String,
}

impl Ear {
    /// Starts to listen.
    ///
    /// # Errors
    /// When the process does not come up.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self { path: path.to_owned(), session: listen(path)?, before: String::new() })
    }

    /// The process.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.session.pid().cast_signed()
    }

    /// Goes away without grace, and comes back as another process.
    ///
    /// # Errors
    /// When it does not come back.
    pub fn restart(&mut self) -> Result<()> {
        self.session.kill();
        self.before.push_str(&self.session.written());
        self.session = listen(&self.path)?;
        Ok(())
    }

    /// Goes on after a SIGSTOP.
    ///
    /// # Errors
    /// When it is gone.
    pub fn go_on(&self) -> Result<()> {
        crate::procs::signal(self.pid(), Signal::SIGCONT)
    }

    /// The exit statuses that were told of a container's first process.
    #[must_use]
    pub fn exits(&self, id: &str) -> Vec<u64> {
        let text = format!("{}{}", self.before, self.session.written());
        let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let exits = events.filter(|told| {
            let event = &told["event"];
            told["topic"] == "/tasks/exit" && event["container_id"] == id && event["id"] == id
        });
        exits.filter_map(|told| told["event"]["exit_status"].as_u64()).collect()
    }

    /// Waits until there is an exit of that container.
    ///
    /// # Errors
    /// When there is none within the limit.
    pub fn expect_exit(&self, id: &str, limit: Duration) -> Result<Vec<u64>> {
        wait::until("the event of the exit", limit, || {
            let exits = self.exits(id);
            ensure!(!exits.is_empty(), "none came");
            Ok(exits)
        })
    }
}

fn listen(path: &Path) -> Result<Session> {
    let mut command = Command::new(env::current_exe().context("find this executable")?);
    command.env(SOCKET, path);
    let session = Session::start(command)?;
    session.expect(READY, SOON)?;
    Ok(session)
}
