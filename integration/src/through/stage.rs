//! What all lives have in common: containerd, the image, and folders for what comes and goes.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use serde_json::json;

use super::Subject;
use crate::client::Client;
use crate::ctr::Ctr;
use crate::daemon::{Daemon, Setup};
use crate::debs::Store;
use crate::engine::Engine;
use crate::image::Layer;
use crate::isolation;
use crate::shim::{NATIVE, Shim};
use crate::spec::Spec;

const UNIFIED: &str = "/sys/fs/cgroup/unified";

/// A containerd 2.x with an image in it.
#[derive(Debug)]
pub struct Stage {
    /// containerd's namespace, and part of every id and cgroup.
    pub(super) mark: String,
    daemon: Daemon,
    layer: PathBuf,
    names: AtomicU32,
}

/// A container that does not exist yet: its folder goes with it.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) id: String,
    pub(super) spec: Spec,
    pub(super) folder: PathBuf,
    /// The options of the overlay that is its root.
    pub(super) overlay: Vec<String>,
}

impl Drop for Draft {
    fn drop(&mut self) {
        // It is in a private mount namespace's tmpfs, which ends with the run.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Stage {
    /// Starts containerd. Only inside [`isolation`].
    ///
    /// # Errors
    /// When a package is missing or containerd does not come up.
    pub fn open(mark: &str) -> Result<Self> {
        // crun takes no host that has controllers in a unified hierarchy beside version 1.
        match umount2(UNIFIED, MntFlags::MNT_DETACH) {
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
            Err(errno) => return Err(errno).context("unmount the unified hierarchy"),
        }
        let dir = Path::new(isolation::DIR);
        let store = Store::open();
        let layer = Layer::new(&store)?;
        let image = layer.write_image(&dir.join("image.tar"))?;
        let unpacked = dir.join("layer");
        fs::create_dir(&unpacked)?;
        layer.unpack(&unpacked)?;
        let setup = Setup {
            engine: Engine::V2,
            shim: Shim::named(NATIVE),
            store,
            namespace: mark.to_owned(),
            log: dir.join("log"),
            environment: Vec::new(),
            runtimes: &[],
        };
        let daemon = Daemon::start(&setup, &dir.join("d"))?;
        daemon.ctr().import(&image)?;
        let (mark, names) = (mark.to_owned(), AtomicU32::new(0));
        Ok(Self { mark, daemon, layer: unpacked, names })
    }

    /// The command line client.
    pub(super) fn ctr(&self) -> &Ctr {
        self.daemon.ctr()
    }

    /// A client whose containers run under that shim.
    pub(super) async fn client(&self, subject: &Subject) -> Result<Client> {
        let path = subject.path.to_string_lossy();
        Client::connect(&self.daemon.socket(), &self.mark, &path).await
    }

    /// A name that was not used before.
    pub(super) fn name(&self) -> String {
        format!("{}-{}", self.mark, self.names.fetch_add(1, Ordering::Relaxed))
    }

    /// A container of `true`, on an overlay like a snapshotter's.
    pub(super) fn draft(&self) -> Result<Draft> {
        let id = self.name();
        let folder = Path::new(isolation::DIR).join(&id);
        let (upper, work) = (folder.join("upper"), folder.join("work"));
        fs::create_dir(&folder)?;
        fs::create_dir(&upper)?;
        fs::create_dir(&work)?;
        let overlay = vec![
            format!("workdir={}", work.display()),
            format!("upperdir={}", upper.display()),
            format!("lowerdir={}", self.layer.display()),
        ];
        let cgroup = format!("/{}/{id}", self.mark);
        // Relative to the bundle, which is where containerd has the shim mount it.
        let spec = Spec::new(Path::new("rootfs"), &cgroup, &["true"])
            .set("/root", json!({ "path": "rootfs" }));
        Ok(Draft { id, spec, folder, overlay })
    }
}
