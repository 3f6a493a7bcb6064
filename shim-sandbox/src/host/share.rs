//! The share: the one folder of the host that a guest sees, with a root filesystem and volumes a
//! container.
//!
//! ```text
//! tree/   written by us alone          share/  the same, served to the guest
//!   c1/rootfs  ← bundle's rootfs         read-only, but for what is mounted on it
//!   c1/v0      ← a volume
//! ```
//! The guest's root can do to the share what it likes. So the top is read-only for it: it can't put a
//! link where we mount next, and what we mount and unmount we name by the other path, where no guest
//! writes. A volume that is read-only is so on the host, whatever the guest makes of it.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use nix::mount::{MsFlags, mount};
use shim_core::{Context, Error, Result, model::ContainerId};

use crate::journal::{Effect, Journal, unmount};

/// A pod's share. Clones are the same.
#[derive(Clone, Debug)]
pub struct Share {
    journal: Arc<Journal>,
    tree: PathBuf,
    served: PathBuf,
}

impl Share {
    /// Makes the share of a sandbox.
    ///
    /// # Errors
    /// What could not be made or mounted.
    pub fn make(journal: Arc<Journal>) -> Result<Self> {
        let (tree, served) = (journal.folder().join("tree"), journal.folder().join("share"));
        for folder in [&tree, &served] {
            fs::DirBuilder::new()
                .mode(0o755)
                .create(folder)
                .with_context(|| format!("make {}", folder.display()))?;
        }
        let share = Self { journal, tree, served };
        share.mount_top()?;
        Ok(share)
    }

    /// What is mounted in the tree later appears in what is served, for both are peers.
    fn mount_top(&self) -> Result<()> {
        self.journal.note(&Effect::Mount(self.tree.clone()))?;
        bind(&self.tree, &self.tree, MsFlags::empty())?;
        change(&self.tree, MsFlags::MS_PRIVATE)?;
        change(&self.tree, MsFlags::MS_SHARED)?;
        self.journal.note(&Effect::Mount(self.served.clone()))?;
        bind(&self.tree, &self.served, MsFlags::empty())?;
        remount_read_only(&self.served)
    }

    /// The folder that is served to the guest.
    pub fn served(&self) -> &Path {
        &self.served
    }

    /// Shares a container's root filesystem. Returns its path in the share.
    ///
    /// # Errors
    /// What could not be made or mounted.
    pub fn add_rootfs(&self, id: &ContainerId, rootfs: &Path) -> Result<String> {
        let folder = self.tree.join(id.as_str());
        fs::DirBuilder::new()
            .mode(0o755)
            .create(&folder)
            .with_context(|| format!("make {}", folder.display()))?;
        self.add(id, "rootfs", rootfs, false)
    }

    /// Shares a volume of a container. Returns its path in the share.
    ///
    /// # Errors
    /// `InvalidArgument` for a source that no guest can be given: a device or a socket. Else what could
    /// not be made or mounted.
    pub fn add_volume(
        &self,
        id: &ContainerId,
        number: usize,
        source: &Path,
        read_only: bool,
    ) -> Result<String> {
        self.add(id, &format!("v{number}"), source, read_only)
    }

    fn add(&self, id: &ContainerId, name: &str, source: &Path, read_only: bool) -> Result<String> {
        let target = self.tree.join(id.as_str()).join(name);
        let kind = fs::metadata(source).with_context(|| format!("find {}", source.display()))?;
        if kind.is_dir() {
            fs::create_dir(&target).map(drop)
        } else if kind.is_file() {
            File::create_new(&target).map(drop)
        } else {
            let why = format!(
                "{} is neither a folder nor a file: a guest can't have it",
                source.display()
            );
            return Err(Error::invalid(why));
        }
        .with_context(|| format!("make {}", target.display()))?;
        self.journal.note(&Effect::Mount(target.clone()))?;
        bind(source, &target, MsFlags::MS_REC)?;
        if read_only {
            remount_read_only(&target)?;
        }
        // What happens in the guest's part of the host does not go back to where it came from.
        change(&target, MsFlags::MS_REC | MsFlags::MS_SLAVE)?;
        change(&target, MsFlags::MS_REC | MsFlags::MS_SHARED)?;
        Ok(format!("{id}/{name}"))
    }

    /// Takes back all that a container was given.
    ///
    /// # Errors
    /// What could not be unmounted; nothing below it is removed.
    pub fn remove(&self, id: &ContainerId) -> Result<()> {
        let folder = self.tree.join(id.as_str());
        let entries = match fs::read_dir(&folder) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries.with_context(|| format!("list {}", folder.display()))?,
        };
        for entry in entries {
            let path = entry.with_context(|| format!("list {}", folder.display()))?.path();
            unmount(&path)?;
            // What is left is ours and empty; what is not was never unmounted.
            let removed = fs::remove_dir(&path).or_else(|_| remove_empty_file(&path));
            removed.with_context(|| format!("remove {}", path.display()))?;
        }
        fs::remove_dir(&folder).with_context(|| format!("remove {}", folder.display()))
    }
}

fn remove_empty_file(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.len() > 0 {
        return Err(io::Error::other("it is not empty"));
    }
    fs::remove_file(path)
}

fn bind(source: &Path, target: &Path, flags: MsFlags) -> Result<()> {
    let none: Option<&str> = None;
    mount(Some(source), target, none, MsFlags::MS_BIND | flags, none)
        .with_context(|| format!("bind {} to {}", source.display(), target.display()))
}

fn change(path: &Path, flags: MsFlags) -> Result<()> {
    let none: Option<&str> = None;
    mount(none, path, none, flags, none)
        .with_context(|| format!("change the mount on {}", path.display()))
}

/// The flags that the mount has stay: a remount names all of them.
fn remount_read_only(path: &Path) -> Result<()> {
    let has =
        nix::sys::statvfs::statvfs(path).with_context(|| format!("look at {}", path.display()))?;
    let kept = MsFlags::from_bits_truncate(has.flags().bits())
        & (MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_NOATIME);
    change(path, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | kept)
}
