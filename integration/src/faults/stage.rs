//! What the rounds of a cell have in common: the lane's folders, the shim, containerd's part.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};
use shim_client::{Daemon, Generation, ShimBinary, Store as Tree};
use shim_protos::Any;

use super::events::Ear;
use crate::debs::Store;
use crate::image::Layer;
use crate::shim::Shim;
use crate::{isolation, target};

/// What a bundle's file system has room for when it is not full.
const ROOM: &str = "size=4m,mode=755";

/// A lane without a containerd: it is played.
#[derive(Debug)]
pub struct Stage {
    /// The namespace, and part of each id and cgroup.
    pub mark: String,
    /// A small file system of its own, with all that belongs to a container.
    pub dir: PathBuf,
    /// The shim under test.
    pub binary: ShimBinary,
    /// containerd as shims see it.
    pub daemon: Daemon,
    /// Who hears of events.
    pub ear: Ear,
    /// The containers' root file system.
    pub rootfs: PathBuf,
    /// The group whose containers share a shim; none gives each its own.
    pub group: Option<String>,
    /// The runtime's options.
    pub options: Option<Any>,
    names: AtomicU32,
}

impl Stage {
    /// Prepares the lane. Only inside [`isolation`].
    ///
    /// # Errors
    /// When something is missing.
    pub fn open(mark: &str) -> Result<Self> {
        let lane = Path::new(isolation::DIR);
        let rootfs = lane.join("rootfs");
        fs::create_dir(&rootfs)?;
        Layer::new(&Store::open())?.unpack(&rootfs)?;
        let dir = lane.join("f");
        fs::create_dir(&dir)?;
        mount(Some("faults"), &dir, Some("tmpfs"), MsFlags::empty(), Some(ROOM))
            .with_context(|| format!("mount {}", dir.display()))?;
        let events = lane.join("e.sock");
        let mut daemon = Tree::open(&lane.join("t"), mark)?
            .daemon(Generation::V2_3, events.clone())
            .context("play containerd")?;
        // Where containerd has it by its default configuration.
        let sockets = "/run/containerd/s";
        daemon.socket_dir = Some(sockets.into());
        // Folders that the first container would make, and that stay.
        for folder in [dir.join("b"), dir.join("c"), sockets.into()] {
            fs::create_dir_all(folder)?;
        }
        let ear = Ear::open(&events)?;
        let binary = binary()?;
        let (mark, names) = (mark.to_owned(), AtomicU32::new(0));
        Ok(Self { mark, dir, binary, daemon, ear, rootfs, group: None, options: None, names })
    }

    /// A name that was not used before.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}-{}", self.mark, self.names.fetch_add(1, Ordering::Relaxed))
    }
}

/// The shim's binary, found as the tests under real containerds find it.
///
/// # Errors
/// When it is not there.
pub fn binary() -> Result<ShimBinary> {
    let shim = Shim::under_test();
    if shim.is_go() {
        bail!("containerd's own shim has no stem: SHIM_RUNTIME has to name ours");
    }
    let dir = std::env::var_os("SHIM_DIR").map(PathBuf::from);
    let dir = dir.map_or_else(target::profile_dir, Ok)?;
    let path = dir.join(shim.binary());
    ShimBinary::resolve(path.to_str().context("the shim's path is not UTF-8")?)
}
