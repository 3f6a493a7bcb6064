//! The root filesystem's mounts, made from what containerd hands over and unmade again.

mod options;
mod overlay;

use std::{
    fs, io,
    path::{Component, Path, PathBuf},
};

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
};

use self::options::Options;
use crate::{
    error::{Context, Error, Result},
    model::Mount,
};

/// Mounts onto `rootfs`, in order. On error whatever was mounted is unmounted again.
///
/// # Errors
/// Which mount failed, on what, and the kernel's reason.
pub(crate) fn mount_all(mounts: &[Mount], rootfs: &Path) -> Result<()> {
    if mounts.is_empty() {
        return Ok(());
    }
    fs::create_dir_all(rootfs).with_context(|| format!("make {}", rootfs.display()))?;
    for each in mounts {
        if let Err(err) = mount_one(each, rootfs) {
            if let Err(left) = unmount_all(rootfs) {
                log::warn!("undo the mounts of {}: {left:#}", rootfs.display());
            }
            return Err(err);
        }
    }
    Ok(())
}

/// Unmounts whatever is mounted on `rootfs` and below, however often. Nothing mounted is fine.
///
/// # Errors
/// Which mount would not go.
pub(crate) fn unmount_all(rootfs: &Path) -> Result<()> {
    // Usually it is one mount, and asking the kernel to undo it is cheaper than reading the list.
    while unmount(rootfs).with_context(|| format!("unmount {}", rootfs.display()))? {}
    Ok(())
}

/// Returns whether there was something to unmount.
fn unmount(target: &Path) -> Result<bool, Errno> {
    match umount2(target, MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) => Ok(true),
        Err(Errno::EINVAL | Errno::ENOENT | Errno::ENOTDIR) => Ok(false),
        // Mounts below it, or somebody's open file: out of sight now, gone when they are.
        Err(Errno::EBUSY) => {
            umount2(target, MntFlags::UMOUNT_NOFOLLOW | MntFlags::MNT_DETACH).map(|()| true)
        }
        Err(err) => Err(err),
    }
}

fn mount_one(each: &Mount, rootfs: &Path) -> Result<()> {
    let target = target_of(each, rootfs)?;
    let options = Options::parse(&each.options)?;
    attach(each, &options, &target).with_context(|| {
        let kind = if each.kind.is_empty() { "filesystem" } else { each.kind.as_str() };
        format!("mount {kind} {} on {}", each.source, target.display())
    })
}

fn attach(each: &Mount, options: &Options, target: &Path) -> Result<()> {
    let bind = options.flags.contains(MsFlags::MS_BIND) || is_bind(&each.kind);
    let mut flags = options.flags;
    if bind {
        flags |= MsFlags::MS_BIND;
        if each.kind == "rbind" {
            flags |= MsFlags::MS_REC;
        }
    }
    let kind = if bind { None } else { Some(each.kind.as_str()) };
    if options.data.len() > overlay::LONGEST && each.kind == "overlay" {
        overlay::mount_long(each, options, target)?;
    } else {
        mount(Some(each.source.as_str()), target, kind, flags, Some(options.data.as_str()))
            .map_err(io::Error::from)?;
    }
    if bind && flags.intersects(options::PER_MOUNT) {
        // A bind mount ignores all other flags at first (mount(2)).
        remount_bind(target, flags)?;
    }
    if let Some(propagation) = options.propagation {
        mount(None::<&str>, target, None::<&str>, propagation, None::<&str>)
            .context("set the propagation")?;
    }
    Ok(())
}

fn remount_bind(target: &Path, flags: MsFlags) -> Result<()> {
    let flags = (flags & options::PER_MOUNT) | MsFlags::MS_BIND | MsFlags::MS_REMOUNT;
    mount(None::<&str>, target, None::<&str>, flags, None::<&str>).context("set the flags")
}

fn is_bind(kind: &str) -> bool {
    matches!(kind, "bind" | "rbind")
}

/// Where a mount goes. Its target is containerd's own, below a directory that containerd made; one
/// that climbs out is refused.
fn target_of(each: &Mount, rootfs: &Path) -> Result<PathBuf> {
    let mut target = rootfs.to_owned();
    for part in Path::new(&each.target).components() {
        match part {
            Component::Normal(name) => target.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(Error::invalid(format!(
                    "mount target {:?} leaves the root",
                    each.target
                )));
            }
        }
        if target.is_symlink() {
            return Err(Error::invalid(format!("mount target {} is a link", target.display())));
        }
    }
    if target != rootfs {
        fs::create_dir_all(&target).with_context(|| format!("make {}", target.display()))?;
    }
    Ok(target)
}
