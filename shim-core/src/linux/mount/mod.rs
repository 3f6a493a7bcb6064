//! The root filesystem's mounts, made from what containerd hands over and unmade again.

mod image;
mod options;
mod overlay;
mod target;

use std::{fs, path::Path};

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
};

use self::{
    image::{Access, LoopDevice},
    options::Options,
    target::Target,
};
use crate::{
    error::{Context, Result},
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
    let mounted = lay_ground(&mounts[0], rootfs)
        .and_then(|()| mounts.iter().try_for_each(|each| mount_one(each, rootfs)));
    if mounted.is_err()
        && let Err(left) = unmount_all(rootfs)
    {
        log::warn!("undo the mounts of {}: {left:#}", rootfs.display());
    }
    mounted
}

/// Where nothing is mounted on the root itself, it becomes a mount of its own: so whatever is below
/// goes with it, and nobody has to keep a list.
fn lay_ground(first: &Mount, rootfs: &Path) -> Result<()> {
    if target::is_root(Path::new(first.target.trim_start_matches('/'))) {
        return Ok(());
    }
    let none = None::<&str>;
    mount(Some(rootfs), rootfs, none, MsFlags::MS_BIND, none)
        .with_context(|| format!("mount {} on itself", rootfs.display()))
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
    let options = Options::parse(&each.options)?;
    let mut target = Target::find(rootfs, &each.target)?;
    let name = target.name();
    attach(each, &options, &mut target).with_context(|| {
        let kind = if each.kind.is_empty() { "filesystem" } else { each.kind.as_str() };
        format!("mount {kind} {} on {}", each.source, name.display())
    })
}

fn attach(each: &Mount, options: &Options, target: &mut Target) -> Result<()> {
    let bind = options.flags.contains(MsFlags::MS_BIND) || is_bind(&each.kind);
    let mut flags = options.flags;
    if bind {
        flags |= MsFlags::MS_BIND;
        if each.kind == "rbind" {
            flags |= MsFlags::MS_REC;
        }
    }
    let kind = if bind { None } else { Some(each.kind.as_str()) };
    let device = device(each, options)?;
    let source = device.as_ref().map_or(Path::new(&each.source), |device| &device.path);
    if options.data.len() > overlay::LONGEST && each.kind == "overlay" {
        overlay::mount_long(each, options, &target.path())?;
    } else {
        mount(Some(source), &target.path(), kind, flags, Some(options.data.as_str()))?;
    }
    // Held until something is mounted from it.
    drop(device);
    target.again()?;
    let target = target.path();
    if bind && flags.intersects(options::PER_MOUNT) {
        // A bind mount ignores all other flags at first (mount(2)).
        remount_bind(&target, flags)?;
    }
    if let Some(propagation) = options.propagation {
        mount(None::<&str>, &target, None::<&str>, propagation, None::<&str>)
            .context("set the propagation")?;
    }
    Ok(())
}

/// The device for an image.
fn device(each: &Mount, options: &Options) -> Result<Option<LoopDevice>> {
    let Some(caching) = options.image else { return Ok(None) };
    let is_readonly = options.flags.contains(MsFlags::MS_RDONLY);
    let access = if is_readonly { Access::ReadOnly } else { Access::ReadWrite };
    LoopDevice::over(&each.source, access, caching).map(Some)
}

fn remount_bind(target: &Path, flags: MsFlags) -> Result<()> {
    let flags = (flags & options::PER_MOUNT) | MsFlags::MS_BIND | MsFlags::MS_REMOUNT;
    mount(None::<&str>, target, None::<&str>, flags, None::<&str>).context("set the flags")
}

fn is_bind(kind: &str) -> bool {
    matches!(kind, "bind" | "rbind")
}

#[cfg(test)]
mod tests;
