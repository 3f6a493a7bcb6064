//! What a guest runs on: a machine with all that belongs to it, by the administrator's choice.

mod process;
mod qemu;

pub(super) use self::qemu::{find, is_kvm, user};

use std::{
    fmt::Debug,
    path::{Path, PathBuf},
    sync::Arc,
};

use shim_core::{Error, Kind, Result, linux::Reaper, model::Exit};
use tokio::{net::UnixStream, sync::watch};

use super::{size::Size, spec::Places};
use crate::{
    Build,
    channel::Word,
    config::{Backend, Config},
    net::Tap,
    vm::{self, Vm},
};

/// What a machine is to be.
#[derive(Debug)]
pub(super) struct Order<'a> {
    /// The administrator's choices.
    pub(super) config: &'a Config,
    /// The guest's size.
    pub(super) size: Size,
    /// What the guest greets with.
    pub(super) word: &'a Word,
    /// The sandbox's folder.
    pub(super) folder: &'a Path,
    /// The folder that the guest sees.
    pub(super) share: &'a Path,
    /// The files by which its processes join its cgroup.
    pub(super) doors: Vec<PathBuf>,
    /// That cgroup's path.
    pub(super) cgroup: &'a str,
    /// Its network.
    pub(super) taps: Vec<Tap>,
    /// Collects its end.
    pub(super) reaper: &'a Reaper,
}

/// A machine whose guest is on its way.
#[derive(Debug)]
pub(super) struct Started {
    /// The machine and its servants.
    pub(super) body: Body,
    /// Its line.
    pub(super) line: UnixStream,
    /// Which build the guest's half has to be of.
    pub(super) build: Build,
    /// Where the guest will have its things.
    pub(super) places: Places,
    /// The name of the share, if the guest is to mount it.
    pub(super) share_tag: String,
}

/// A machine and its servants: of no use without each other.
#[derive(Debug)]
pub(super) struct Body {
    /// The machine.
    pub(super) vm: Arc<dyn Vm>,
    /// Its file server's end, if it has one.
    pub(super) files: Option<watch::Receiver<Option<Exit>>>,
    /// Ends with this.
    _servants: Option<vm::virtiofsd::Virtiofsd>,
}

impl Body {
    /// Waits until there is no use in it any more, and says why.
    pub(super) async fn ended(&self) -> String {
        tokio::select! {
            exit = vm::end(&*self.vm) => format!("the machine has ended: {:?}", exit.status),
            status = self.files_ended() => format!("the file server has ended: {status}"),
        }
    }

    async fn files_ended(&self) -> String {
        let Some(files) = &self.files else { return std::future::pending().await };
        let mut files = files.clone();
        let exit = files.wait_for(Option::is_some).await.ok().and_then(|exit| *exit);
        exit.map_or_else(String::new, |exit| format!("{:?}", exit.status))
    }
}

/// Starts a machine, and returns while its guest boots.
///
/// # Errors
/// What could not be started. What has been is in the cgroup.
pub(super) async fn start(order: Order<'_>) -> Result<Started> {
    match order.config.backend {
        Backend::Process => process::start(order).await,
        Backend::Qemu => qemu::start(order).await,
        Backend::Gvisor => {
            Err(Error::new(Kind::FailedPrecondition, "gVisor's sandboxes have no machine"))
        }
    }
}
