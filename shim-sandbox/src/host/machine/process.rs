//! No machine at all: the guest's half as a plain process of this host, with namespaces for what a pod's
//! setup changes. It isolates nothing; it is there so that all else can be tested without a machine.

use std::{
    ffi::{CString, OsString},
    fs::{self, File},
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStrExt, fs::symlink, net::UnixStream as StdStream},
    },
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use shim_core::{
    Context, Error, Kind, Result,
    linux::{Program, open_pid, signal_pidfd, spawn_program},
    model::{Exit, Pid, Signal},
};
use tokio::{net::UnixStream, sync::watch, time::timeout};

use super::{Body, Order, Started};
use crate::{
    Build,
    confine::Confinement,
    guest,
    host::spec::Places,
    vm::{self, Vm},
};

/// The program of the guest's half: ours.
const SELF: &str = "/proc/self/exe";

#[derive(Debug)]
struct Agent {
    pid: Pid,
    exit: watch::Receiver<Option<Exit>>,
    log: std::path::PathBuf,
}

/// Starts the guest's half.
pub(super) async fn start(order: Order<'_>) -> Result<Started> {
    if !order.taps.is_empty() {
        let why = "the guest's half as a process has no network of the pod's";
        return Err(Error::new(Kind::FailedPrecondition, why));
    }
    let root = order.folder.join("agent");
    fs::create_dir(&root).with_context(|| format!("make {}", root.display()))?;
    // What is mounted there later comes into its namespace by itself.
    symlink(order.share, root.join("share")).context("show it the share")?;
    let (ours, theirs) = StdStream::pair().context("make a line")?;
    ours.set_nonblocking(true).context("prepare the line")?;
    let arguments: Vec<OsString> = [
        SELF.as_ref(),
        guest::SUBCOMMAND.as_ref(),
        "--socket".as_ref(),
        "-".as_ref(),
        "--word".as_ref(),
        order.word.as_str().as_ref(),
        "--root".as_ref(),
        root.as_os_str(),
    ]
    .map(OsString::from)
    .into();
    let confinement = Confinement { cgroups: order.doors.clone(), ..Confinement::default() };
    let log = order.folder.join("console");
    let console = File::create(&log).with_context(|| format!("make {}", log.display()))?;
    let (out, err) = (console.try_clone().context("share the console")?, console);
    let program = Program {
        path: c_string(SELF.as_ref())?,
        arguments: [OsString::from("agent")]
            .into_iter()
            .chain(confinement.arguments(&arguments))
            .map(|word| c_string(&word))
            .collect::<Result<_>>()?,
        environment: Vec::new(),
        directory: c"/".to_owned(),
        streams: vec![OwnedFd::from(theirs), out.into(), err.into()],
        terminal: false,
        dies_with_us: true,
        files: None,
    };
    let (pid, exit, gate) = spawn_program(order.reaper, &program)?;
    gate.open().await?;
    let (ended, seen) = watch::channel(None);
    tokio::spawn(async move {
        ended.send_replace(Some(exit.await));
    });
    let vm = Arc::new(Agent { pid, exit: seen, log });
    let body = Body { vm, files: None, _servants: None };
    let line = UnixStream::from_std(ours).context("watch the line")?;
    let places = Places {
        files: root.display().to_string(),
        // Below the machine's, so that they end with it.
        cgroup: order.cgroup.to_owned(),
    };
    Ok(Started { body, line, build: Build::own()?, places, share_tag: String::new() })
}

#[async_trait]
impl Vm for Agent {
    fn pid(&self) -> Pid {
        self.pid
    }

    fn exited(&self) -> watch::Receiver<Option<Exit>> {
        self.exit.clone()
    }

    async fn power_off(&self, grace: Duration) -> Exit {
        if let Ok(exit) = timeout(grace, vm::end(self)).await {
            return exit;
        }
        if let Ok(pidfd) = open_pid(self.pid) {
            // One that is gone already needs none.
            let _gone = signal_pidfd(&pidfd, Signal::KILL);
        }
        vm::end(self).await
    }

    fn console_tail(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

fn c_string(word: &std::ffi::OsStr) -> Result<CString> {
    CString::new(word.as_bytes()).map_err(|_| Error::invalid(format!("{word:?} has a NUL")))
}
