//! The root filesystem's mounts, made from what containerd hands over and unmade again.
//!
//! Some are made for later ones alone: an image that becomes an overlay's layer. These are mounted
//! in a small filesystem of their own, on the root filesystem's directory, and the root filesystem
//! over it. So they are found and undone with it, by us and by containerd, and nobody keeps a list.

mod erofs;
mod format;
mod image;
mod mkdir;
mod options;
mod overlay;
mod prefix;
mod target;

use std::{
    borrow::Cow,
    fs::{self, File},
    os::{fd::AsRawFd, unix::fs::symlink},
    path::Path,
};

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
};

use self::{
    format::Earlier,
    image::{Access, Caching, LoopDevice},
    options::Options,
    prefix::Prefix,
    target::Target,
};
use crate::{
    error::{Context, Error, Result},
    model::{Bundle, Mount},
};

/// How many mounts may be made for others; containerd remembers no more, either.
const MOST_APART: usize = 255;

/// What [`taken`] says.
const TAKEN: &str = "erofs,loop,format/*,mkdir/*";

/// The mounts that containerd may leave to us, as types with commas between. All or none: once it
/// makes one of a list by itself, the numbers in the placeholders of the rest are off.
///
/// None where layers may be guarded by dm-verity, which is containerd's to set up.
pub(crate) fn taken() -> Option<&'static str> {
    // By this file containerd itself decides whether it can.
    let is_guarded = Path::new("/sys/module/dm_verity").exists();
    (!is_guarded).then_some(TAKEN)
}

/// Mounts onto a bundle's root filesystem, in order. On error whatever was mounted is unmounted
/// again.
///
/// # Errors
/// Which mount failed, on what, and the kernel's reason.
pub(crate) fn mount_all(mounts: &[Mount], bundle: &Bundle) -> Result<()> {
    if mounts.is_empty() {
        return Ok(());
    }
    let apart = prefix::count_apart(mounts)?;
    if apart > MOST_APART {
        return Err(Error::invalid(format!("{apart} mounts are for others, over {MOST_APART}")));
    }
    let rootfs = bundle.rootfs();
    fs::create_dir_all(&rootfs).with_context(|| format!("make {}", rootfs.display()))?;
    let mounted = mount_list(mounts, apart, bundle, &rootfs);
    if mounted.is_err()
        && let Err(left) = unmount_all(&rootfs)
    {
        log::warn!("undo the mounts of {}: {left:#}", rootfs.display());
    }
    mounted
}

fn mount_list(mounts: &[Mount], apart: usize, bundle: &Bundle, rootfs: &Path) -> Result<()> {
    let rest = &mounts[apart..];
    let is_covered = target::is_root(Path::new(rest[0].target.trim_start_matches('/')));
    // Before anything hides it.
    let own = if is_covered { None } else { Some(open(rootfs)?) };
    if apart > 0 {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("apart"), rootfs, Some("tmpfs"), flags, Some("mode=700,size=1m"))
            .with_context(|| format!("mount tmpfs on {}", rootfs.display()))?;
    }
    let mut earlier = Vec::new();
    // The kernel frees a device that is not mounted: until the end somebody may do it.
    let mut devices = Vec::new();
    for (n, each) in mounts[..apart].iter().enumerate() {
        let each = prepared(each, &earlier, bundle)?;
        let point = rootfs.join(n.to_string());
        let (found, device) = mount_apart(&each, &point)?;
        earlier.push(found);
        devices.extend(device);
    }
    let ground = if is_covered || apart == 0 { rootfs.to_owned() } else { rootfs.join("ground") };
    if let Some(own) = own {
        lay_ground(&own, &ground)?;
    }
    for each in rest {
        mount_one(prepared(each, &earlier, bundle)?.as_ref(), &ground)?;
    }
    if ground != rootfs {
        // Only now: it hides what is made apart.
        bind(&ground, rootfs, MsFlags::MS_REC)?;
    }
    Ok(())
}

/// A mount as it is once its type's prefixes are acted on.
fn prepared<'a>(each: &'a Mount, earlier: &[Earlier], bundle: &Bundle) -> Result<Cow<'a, Mount>> {
    let (prefixes, kind) = prefix::split(&each.kind)?;
    if prefixes.is_empty() {
        return Ok(Cow::Borrowed(each));
    }
    let mut ready = Mount { kind: kind.to_owned(), ..each.clone() };
    for prefix in prefixes {
        match prefix {
            Prefix::Format => format::fill(&mut ready, earlier),
            Prefix::MakeDirectories => mkdir::make_all(&mut ready, earlier, bundle),
        }
        .with_context(|| format!("prepare the mount {} {}", each.kind, each.source))?;
    }
    Ok(Cow::Owned(ready))
}

/// Mounts for later mounts alone; a `loop` mount is a link to its device.
fn mount_apart(each: &Mount, point: &Path) -> Result<(Earlier, Option<LoopDevice>)> {
    let mut source = each.source.clone();
    let device = if each.kind == prefix::DEVICE {
        let options = Options::parse(&each.options)?;
        let caching = options.image.unwrap_or(Caching::Cached);
        let device = LoopDevice::over(&each.source, access(&options), caching)?;
        symlink(&device.path, point).with_context(|| format!("make {}", point.display()))?;
        source = device.path.display().to_string();
        Some(device)
    } else {
        fs::create_dir(point).with_context(|| format!("make {}", point.display()))?;
        mount_one(each, point)?;
        None
    };
    let point = point.to_str().ok_or_else(|| Error::invalid("the bundle's path is not UTF-8"))?;
    Ok((Earlier { source, target: each.target.clone(), point: point.to_owned() }, device))
}

/// Where nothing is mounted on the root itself, it becomes a mount of its own: so whatever is below
/// goes with it, and nobody has to keep a list.
fn lay_ground(own: &File, ground: &Path) -> Result<()> {
    fs::create_dir_all(ground).with_context(|| format!("make {}", ground.display()))?;
    let own = format!("/proc/self/fd/{}", own.as_raw_fd());
    bind(Path::new(&own), ground, MsFlags::empty())
}

fn open(rootfs: &Path) -> Result<File> {
    File::open(rootfs).with_context(|| format!("open {}", rootfs.display()))
}

fn bind(source: &Path, target: &Path, flags: MsFlags) -> Result<()> {
    let none = None::<&str>;
    mount(Some(source), target, none, MsFlags::MS_BIND | flags, none)
        .with_context(|| format!("mount what is the root on {}", target.display()))
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
    let place = target.path();
    match kind {
        Some(erofs::KIND) => erofs::attach(&each.source, options, &place)?,
        Some("overlay") if options.data.len() > overlay::LONGEST => {
            overlay::mount_long(each, options, &place)?;
        }
        _ => {
            // Held until something is mounted from it.
            let device = device(each, options)?;
            let source = device.as_ref().map_or(Path::new(&each.source), |device| &device.path);
            let data = Some(options.data.as_str());
            mount(Some(source), &place, kind, flags, data).map_err(explain)?;
        }
    }
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
    LoopDevice::over(&each.source, access(options), caching).map(Some)
}

fn access(options: &Options) -> Access {
    let is_readonly = options.flags.contains(MsFlags::MS_RDONLY);
    if is_readonly { Access::ReadOnly } else { Access::ReadWrite }
}

/// Says what the kernel means where its own words are about devices.
fn explain(errno: Errno) -> Error {
    let err = Error::from(errno);
    if errno == Errno::ENODEV { err.context("the kernel has no such filesystem") } else { err }
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
