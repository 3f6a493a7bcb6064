//! A running shim: started, connected, and in the end cleaned up after.

use anyhow::{Context, Result, bail};
use shim_protos::Any;
use shim_protos::task::{DeleteResponse, ShutdownRequest};
use ttrpc::r#async::Client;
use ttrpc::asynchronous::transport::Socket;

use crate::answer::Answer;
use crate::binary::ShimBinary;
use crate::bundle::Bundle;
use crate::daemon::Daemon;
use crate::error::Reason;
use crate::execute;
use crate::shim_log::ShimLog;
use crate::task::Task;

/// The shim of one bundle, connected.
///
/// Dropping it closes the connection and nothing else, as when a daemon stops; for as long as it
/// lives, the shim's log is read.
#[derive(Debug)]
pub struct Shim {
    /// Its task service.
    pub task: Task,
    /// What `start` answered.
    pub answer: Answer,
    daemon: Daemon,
    binary: ShimBinary,
    bundle: Bundle,
    log: ShimLog,
}

impl Shim {
    /// The daemon that it serves.
    pub fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    /// The file that it was executed from.
    pub fn binary(&self) -> &ShimBinary {
        &self.binary
    }

    /// The bundle that it was started in.
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// Executes `start` in the bundle and connects to the address it prints.
    ///
    /// When that fails, `delete` has been executed; the bundle is left to the caller.
    pub async fn start(
        daemon: &Daemon,
        binary: &ShimBinary,
        bundle: &Bundle,
        options: Option<&Any>,
    ) -> Result<Self> {
        let log = ShimLog::copy(bundle, &daemon.log)?;
        let started = match execute::start(daemon, binary, bundle, options).await {
            Ok(answer) => {
                log::debug!("shim at {}, task service v{}", answer.address, answer.version);
                Self::dial(daemon, &answer).await.map(|task| (task, answer))
            }
            Err(error) => Err(error),
        };
        let kept = started.and_then(|(task, answer)| {
            bundle.keep_start(daemon.generation, binary, &answer).map(|()| (task, answer))
        });
        match kept {
            Ok((task, answer)) => Ok(Self::new(task, answer, daemon, binary, bundle, log)),
            Err(error) => {
                if let Err(left) = execute::delete(daemon, binary, bundle).await {
                    // Usual for a shim that keeps in the bundle what it needs to clean up, and
                    // got to keep nothing.
                    log::debug!("clean up after the failed start: {left:#}");
                }
                log.finish().await;
                Err(error)
            }
        }
    }

    /// Connects to a shim that runs already.
    ///
    /// One attempt, as containerd makes: a shim listens before it prints its address.
    pub async fn connect(
        daemon: &Daemon,
        binary: &ShimBinary,
        bundle: &Bundle,
        answer: Answer,
    ) -> Result<Self> {
        let log = ShimLog::copy(bundle, &daemon.log)?;
        let task = Self::dial(daemon, &answer).await?;
        Ok(Self::new(task, answer, daemon, binary, bundle, log))
    }

    async fn dial(daemon: &Daemon, answer: &Answer) -> Result<Task> {
        let connection = dial(&answer.address)
            .await
            .with_context(|| format!("connect to the shim at {}", answer.address))?;
        Ok(Task::new(connection, answer.version, daemon))
    }

    fn new(
        task: Task,
        answer: Answer,
        daemon: &Daemon,
        binary: &ShimBinary,
        bundle: &Bundle,
        log: ShimLog,
    ) -> Self {
        let (daemon, binary, bundle) = (daemon.clone(), binary.clone(), bundle.clone());
        Self { task, answer, daemon, binary, bundle, log }
    }

    /// Closes the connection, as a daemon that stops, and writes down what was logged so far.
    pub async fn leave(self) {
        drop(self.task);
        self.log.finish().await;
    }

    /// Asks a shim without containers to end, then runs `delete` on what may be left.
    ///
    /// This is what containerd does after every task, and after a shim that died. The answer tells
    /// how the container ended, for when the shim could not; the bundle is left to the caller.
    pub async fn clean_up(self) -> Result<DeleteResponse> {
        let request = ShutdownRequest { id: self.bundle.id().to_owned(), ..Default::default() };
        match self.task.shutdown(&request).await {
            // A shim may end faster than its answer travels.
            Ok(_) => {}
            Err(error) if error.reason == Reason::Gone => {}
            Err(error) => log::warn!("{error}"),
        }
        drop(self.task);
        let ended = execute::delete(&self.daemon, &self.binary, &self.bundle).await;
        self.log.finish().await;
        ended
    }
}

/// Opens a ttrpc connection to an address as shims print them.
async fn dial(address: &str) -> Result<Client> {
    let socket = match address.split_once("://") {
        Some(("unix", path)) => Socket::connect_unix(path).await?,
        // Without a scheme it is the name of an abstract socket, which ttrpc writes with an @.
        None => Socket::connect_unix(format!("@{address}")).await?,
        Some((scheme, _)) => bail!("shimctl cannot reach {scheme}:// addresses, only unix://"),
    };
    Ok(Client::new(socket))
}
