//! QEMU: a machine is a process, confined before it is executed.

mod arguments;
mod monitor;

use std::{
    ffi::OsString, os::fd::OwnedFd, os::unix::net::UnixStream as StdStream, path::PathBuf,
    sync::Arc, time::Duration,
};

use async_trait::async_trait;
use shim_core::{
    Context, Error, Result,
    linux::Reaper,
    model::{Exit, Pid},
};
use tokio::{net::UnixStream, sync::watch, time::timeout};

use self::monitor::Monitor;
use super::{Accelerator, Booted, Files, Hypervisor, Launch, Vm, VmConfig, process::Process};
use crate::confine::Confinement;

/// What QEMU sees of the system, beside its own files: libraries, firmware, randomness.
const SEES: [&str; 6] = ["/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/dev/null", "/dev/urandom"];

/// How long it may take to quit when it is asked to.
const QUIT: Duration = Duration::from_secs(1);

/// QEMU, as one is started.
#[derive(Clone, Debug)]
pub struct Qemu {
    /// Its program.
    pub launch: Launch,
}

#[async_trait]
impl Hypervisor for Qemu {
    async fn boot(&self, reaper: &Reaper, config: &VmConfig, files: Files) -> Result<Booted> {
        let (line, lines_end) = pair()?;
        let (monitor, monitors_end) = pair()?;
        check(config, &files)?;
        let places = arguments::Places::of(config);
        let arguments = arguments::arguments(config, places);
        let given = [lines_end, monitors_end].into_iter().chain(files.share);
        let given = given.chain(files.taps).chain(files.disks).collect();
        let confinement = self.confinement(config);
        let arguments = arguments.into_iter().map(OsString::from);
        let process = Process::start(reaper, &self.launch, &confinement, arguments, given).await?;
        let machine = Machine { process, monitor: Monitor::new(stream(monitor)?) };
        Ok(Booted { vm: Arc::new(machine), line: stream(line)? })
    }
}

impl Qemu {
    fn confinement(&self, config: &VmConfig) -> Confinement {
        let system = SEES.iter().map(PathBuf::from).filter(|path| path.exists());
        let kvm = (config.accelerator == Accelerator::Kvm).then(|| PathBuf::from("/dev/kvm"));
        let files = [config.kernel.clone(), config.initrd.clone()];
        let sees = system.chain(kvm).chain(files).chain(self.launch.sees.iter().cloned());
        Confinement {
            cgroups: config.cgroups.clone(),
            user: Some(self.launch.user),
            sees: sees.collect(),
            oom_score: None,
        }
    }
}

fn check(config: &VmConfig, files: &Files) -> Result<()> {
    let (nics, taps) = (config.nics.len(), files.taps.len());
    if nics != taps {
        return Err(Error::invalid(format!("{taps} taps for {nics} network cards")));
    }
    let (disks, given) = (config.disks.len(), files.disks.len());
    if disks != given {
        return Err(Error::invalid(format!("{given} files for {disks} disks")));
    }
    if config.share.is_some() != files.share.is_some() {
        return Err(Error::invalid("a share and its connection go together"));
    }
    let is_serial = |serial: &str| {
        (1..=20).contains(&serial.len()) && serial.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    match config.disks.iter().find(|disk| !is_serial(&disk.serial)) {
        Some(disk) => {
            let why = format!("{:?} is no serial number: 1 to 20 letters and digits", disk.serial);
            Err(Error::invalid(why))
        }
        None => Ok(()),
    }
}

fn pair() -> Result<(StdStream, OwnedFd)> {
    let (ours, theirs) = StdStream::pair().context("make a pair of sockets")?;
    Ok((ours, theirs.into()))
}

fn stream(socket: StdStream) -> Result<UnixStream> {
    socket.set_nonblocking(true).context("prepare a socket")?;
    UnixStream::from_std(socket).context("watch a socket")
}

/// A machine.
#[derive(Debug)]
struct Machine {
    process: Process,
    monitor: Monitor,
}

#[async_trait]
impl Vm for Machine {
    fn pid(&self) -> Pid {
        self.process.pid
    }

    fn exited(&self) -> watch::Receiver<Option<Exit>> {
        self.process.exited.clone()
    }

    async fn power_off(&self, grace: Duration) -> Exit {
        if let Ok(exit) = timeout(grace, super::end(self)).await {
            return exit;
        }
        let quit = async {
            self.monitor.quit().await?;
            Ok::<_, Error>(super::end(self).await)
        };
        if let Ok(Ok(exit)) = timeout(QUIT, quit).await {
            return exit;
        }
        self.process.kill();
        super::end(self).await
    }

    fn console_tail(&self) -> String {
        self.process.console.tail()
    }
}
