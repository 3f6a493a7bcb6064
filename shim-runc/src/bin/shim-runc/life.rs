//! The verbs of a container's life: create, start, run, kill, pause, resume, delete.

use std::path::PathBuf;

use shim_core::{
    Context, Error, Result,
    model::{Bundle, Pid},
};
use shim_runc::runtime::{self, Running, Whom};

use crate::{
    cli::Global,
    session::{Terminal, Ties, attend},
    signals::{self, Caught},
};

/// Flags of what is made.
#[derive(Debug, clap::Args)]
struct Making {
    /// The bundle: a directory with a config.json
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    bundle: PathBuf,
    #[command(flatten)]
    ties: Ties,
    /// Change the root without pivot_root(2), which a root filesystem in memory refuses
    #[arg(long)]
    no_pivot: bool,
    /// Leave the container the caller's session keyring
    #[arg(long)]
    no_new_keyring: bool,
    /// The container's name
    id: String,
}

impl Making {
    fn wanted(&self, global: &Global, stays: bool) -> Result<runtime::Create> {
        Ok(runtime::Create {
            bundle: Bundle::new(std::path::absolute(&self.bundle)?)?,
            console: self.ties.console(stays),
            cgroups: global.cgroups(),
            no_pivot_root: self.no_pivot,
            no_new_keyring: self.no_new_keyring,
            supervisor: Global::supervisor()?,
        })
    }
}

/// Make a container, which waits for its start
#[derive(Debug, clap::Args)]
pub(crate) struct Create {
    #[command(flatten)]
    making: Making,
}

impl Create {
    pub(crate) async fn run(&self, global: &Global) -> Result<u8> {
        let making = &self.making;
        let runtime = global.runtime_passing(making.ties.preserve_fds)?;
        let pid = runtime.create(&making.id, &making.wanted(global, false)?).await?;
        if let Err(err) = making.ties.write_pid(pid) {
            runtime.delete(&making.id, true).await?;
            return Err(err);
        }
        Ok(0)
    }
}

/// Let the program of a container run
#[derive(Debug, clap::Args)]
pub(crate) struct Start {
    id: String,
}

impl Start {
    pub(crate) async fn run(&self, global: &Global) -> Result<u8> {
        global.runtime()?.start(&self.id, Global::supervisor()?.as_ref()).await.map(|()| 0)
    }
}

/// Make a container, start it, and stay with it until it ends
#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    #[command(flatten)]
    making: Making,
    /// Leave it alone once it runs
    #[arg(short, long)]
    detach: bool,
    /// Leave it to `delete` once it has ended
    #[arg(long)]
    keep: bool,
    /// Accepted for callers of runc; there is no subreaper
    #[arg(long, hide = true)]
    no_subreaper: bool,
}

impl Run {
    pub(crate) async fn run(&self, global: &Global) -> Result<u8> {
        let making = &self.making;
        let wanted = making.wanted(global, !self.detach)?;
        if !self.detach && matches!(wanted.console, runtime::Console::Socket(_)) {
            return Err(Error::invalid("a console socket is for a container that is left alone"));
        }
        // From here on a signal is the container's.
        let mut caught = (!self.detach).then(Caught::begin).transpose().context("catch signals")?;
        let runtime = global.runtime_passing(making.ties.preserve_fds)?;
        let mut running = runtime.run(&making.id, &wanted).await?;
        let started = self.start(&mut running, caught.as_mut()).await;
        match started {
            Ok(Some(status)) => {
                if !self.keep {
                    running.delete().await?;
                }
                // An exit status has eight bits.
                Ok(u8::try_from(status).unwrap_or(u8::MAX))
            }
            Ok(None) => Ok(0),
            Err(err) => {
                if let Err(left) = running.delete().await {
                    log::warn!("{left:#}");
                }
                Err(err)
            }
        }
    }

    /// Starts the container, and tells its status if we have stayed for it.
    async fn start(
        &self,
        running: &mut Running,
        caught: Option<&mut Caught>,
    ) -> Result<Option<u32>> {
        self.making.ties.write_pid(running.pid)?;
        let terminal = running.terminal.take().map(Terminal::begin);
        let terminal = terminal.transpose().context("use the terminal")?;
        running.start().await?;
        let (readiness, pid) = (running.readiness(), running.pid);
        let relay = async |main| {
            if let Some(readiness) = readiness {
                readiness.relay(pid, main).await;
            }
        };
        let Some(caught) = caught else {
            relay(pid).await;
            return Ok(None);
        };
        // It is we who stay for the supervisor.
        let own = Pid::new(std::process::id().cast_signed())?;
        let exit = async { tokio::join!(running.wait(), relay(own)).0 };
        attend(caught, pid, terminal, exit).await.map(Some)
    }
}

/// Signal a container
#[derive(Debug, clap::Args)]
pub(crate) struct Kill {
    /// Signal all its processes
    #[arg(short, long)]
    all: bool,
    id: String,
    /// By name or number
    #[arg(default_value = "SIGTERM")]
    signal: String,
}

impl Kill {
    pub(crate) fn run(&self, global: &Global) -> Result<u8> {
        let whom = if self.all { Whom::All } else { Whom::Init };
        global.runtime()?.kill(&self.id, whom, signals::parse(&self.signal)?).map(|()| 0)
    }
}

/// Remove a container that has ended
#[derive(Debug, clap::Args)]
pub(crate) struct Delete {
    /// One that runs, too: it is killed; and one that is not there is no error
    #[arg(short, long)]
    force: bool,
    id: String,
}

impl Delete {
    pub(crate) async fn run(&self, global: &Global) -> Result<u8> {
        global.runtime()?.delete(&self.id, self.force).await.map(|()| 0)
    }
}

/// Freeze all processes of a container
#[derive(Debug, clap::Args)]
pub(crate) struct Pause {
    id: String,
}

impl Pause {
    pub(crate) async fn run(&self, global: &Global) -> Result<u8> {
        global.runtime()?.pause(&self.id).await.map(|()| 0)
    }
}

/// Let all processes of a paused container go on
#[derive(Debug, clap::Args)]
pub(crate) struct Resume {
    id: String,
}

impl Resume {
    pub(crate) fn run(&self, global: &Global) -> Result<u8> {
        global.runtime()?.resume(&self.id).map(|()| 0)
    }
}
