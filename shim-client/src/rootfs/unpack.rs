//! Writing a layer's tar entries into a directory of its own, as overlayfs wants them.
//!
//! A layer comes from strangers: every path is resolved by the kernel inside the directory
//! (`RESOLVE_IN_ROOT`), so neither `..` nor a planted symlink leads out of it. A removal travels as
//! a file named `.wh.<name>`; overlayfs has a device 0/0 for it, and for a directory that hides
//! everything below it an extended attribute.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{
    FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmodat, fstat, makedev, mkdirat, mknodat,
    utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fchownat, linkat, symlinkat, unlinkat};
use rustix::fs::{XattrFlags, lsetxattr};
use tar::{Entry, EntryType};

use super::archive::clean;

/// Writes all entries below `folder`; `below` are the layers under this one, lowest first.
pub(super) fn unpack(content: &mut impl Read, folder: &Path, below: &[PathBuf]) -> Result<()> {
    let mut target = Target::open(folder, below)?;
    for entry in tar::Archive::new(content).entries().context("read the layer")? {
        let mut entry = entry.context("read the layer")?;
        let path = clean(&entry.path().context("a name in the layer")?)?;
        target.place(&path, &mut entry).with_context(|| format!("unpack {}", path.display()))?;
    }
    target.finish()
}

/// Reads a regular text file inside a directory that is treated as a root.
pub(super) fn read_in(folder: &Path, path: &Path) -> Option<String> {
    let root = File::open(folder).ok()?;
    let how = OpenHow::new()
        // Without O_NONBLOCK, a fifo in place of the file would hang us.
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT);
    let file = File::from(openat2(&root, path, how).ok()?);
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut text = String::new();
    file.take(1 << 20).read_to_string(&mut text).ok()?;
    Some(text)
}

/// What an entry's name means.
#[derive(Debug, PartialEq, Eq)]
enum Meaning<'a> {
    /// A file of the layer.
    File,
    /// The removal of that sibling.
    Whiteout(&'a OsStr),
    /// Its directory hides what lower layers have in it.
    Opaque,
    /// Housekeeping of the old aufs driver.
    Nothing,
}

fn meaning(name: &OsStr) -> Meaning<'_> {
    let bytes = name.as_bytes();
    match bytes.strip_prefix(b".wh.") {
        None => Meaning::File,
        Some(b".wh..opq") => Meaning::Opaque,
        Some(rest) if rest.is_empty() || rest.starts_with(b".wh.") => Meaning::Nothing,
        Some(rest) => Meaning::Whiteout(OsStr::from_bytes(rest)),
    }
}

/// The directory that a layer is unpacked into.
struct Target {
    root: OwnedFd,
    below: Vec<OwnedFd>,
    /// Directories' times, set at the end: each new file in a directory changes its own.
    times: Vec<(PathBuf, TimeSpec)>,
}

impl Target {
    fn open(folder: &Path, layers: &[PathBuf]) -> Result<Self> {
        let open = |path: &Path| {
            File::open(path).map(OwnedFd::from).with_context(|| format!("open {}", path.display()))
        };
        // Uppermost first: the first that has a directory is the one to copy.
        let below = layers.iter().rev().map(|path| open(path)).collect::<Result<_>>()?;
        Ok(Self { root: open(folder)?, below, times: Vec::new() })
    }

    fn place(&mut self, path: &Path, entry: &mut Entry<'_, impl Read>) -> Result<()> {
        let Some(name) = path.file_name() else {
            return self.set_root(entry);
        };
        let parent = self.parent(path)?;
        match meaning(name) {
            Meaning::Nothing => Ok(()),
            Meaning::Opaque => {
                set_attribute(&parent, OsStr::new("."), "trusted.overlay.opaque", b"y")
            }
            Meaning::Whiteout(removed) => {
                clear(&parent, removed)?;
                mknodat(&parent, removed, SFlag::S_IFCHR, Mode::empty(), makedev(0, 0))
                    .context("create a whiteout")
            }
            Meaning::File => self.place_file(path, &parent, name, entry),
        }
    }

    fn place_file(
        &mut self,
        path: &Path,
        parent: &OwnedFd,
        name: &OsStr,
        entry: &mut Entry<'_, impl Read>,
    ) -> Result<()> {
        let kind = entry.header().entry_type();
        if kind == EntryType::Directory {
            self.times.push((path.to_owned(), time(entry)?));
            match mkdirat(parent, name, Mode::S_IRWXU) {
                Err(Errno::EEXIST) if is_directory(parent, name) => {}
                Err(Errno::EEXIST) => {
                    clear(parent, name)?;
                    mkdirat(parent, name, Mode::S_IRWXU).context("create")?;
                }
                made => made.context("create")?,
            }
            return set_metadata(parent, name, kind, entry);
        }
        clear(parent, name)?;
        match kind {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                write_file(parent, name, entry)?;
            }
            EntryType::Symlink => {
                symlinkat(link_target(entry)?.as_path(), parent, name).context("create")?;
            }
            EntryType::Link => {
                // Shares the metadata of what it links to.
                return self.link(&link_target(entry)?, parent, name);
            }
            EntryType::Char => make_node(parent, name, SFlag::S_IFCHR, entry)?,
            EntryType::Block => make_node(parent, name, SFlag::S_IFBLK, entry)?,
            EntryType::Fifo => make_node(parent, name, SFlag::S_IFIFO, entry)?,
            EntryType::XGlobalHeader => return Ok(()),
            other => bail!("entries of type {other:?} have no place in an image"),
        }
        set_metadata(parent, name, kind, entry)
    }

    fn link(&self, target: &Path, parent: &OwnedFd, name: &OsStr) -> Result<()> {
        let target = clean(target)?;
        let Some(file) = target.file_name() else { bail!("a hard link to the root") };
        let folder = self.parent(&target)?;
        linkat(&folder, file, parent, name, AtFlags::empty())
            .with_context(|| format!("link to {}", target.display()))
    }

    /// Opens the directory that holds `path`, creating it where the layer leaves it out.
    fn parent(&self, path: &Path) -> Result<OwnedFd> {
        let parent = path.parent().unwrap_or(Path::new(""));
        match open_folder(&self.root, parent) {
            Err(Errno::ENOENT) => {}
            opened => return opened.with_context(|| format!("open {}", parent.display())),
        }
        let mut sofar = PathBuf::new();
        for component in parent {
            sofar.push(component);
            if let Err(Errno::ENOENT) = open_folder(&self.root, &sofar) {
                self.copy_folder(&sofar, component)?;
            }
        }
        open_folder(&self.root, parent).with_context(|| format!("open {}", parent.display()))
    }

    /// Creates a directory with the owner and mode that it has in the layers below.
    fn copy_folder(&self, path: &Path, name: &OsStr) -> Result<()> {
        let parent = open_folder(&self.root, path.parent().unwrap_or(Path::new("")))
            .context("open its parent")?;
        mkdirat(&parent, name, Mode::from_bits_truncate(0o755))
            .with_context(|| format!("create {}", path.display()))?;
        for layer in &self.below {
            let Ok(folder) = open_folder(layer, path) else { continue };
            let stat = fstat(&folder).context("look at a directory of a lower layer")?;
            let mode = Mode::from_bits_truncate(stat.st_mode);
            fchownat(
                &parent,
                name,
                Some(Uid::from_raw(stat.st_uid)),
                Some(Gid::from_raw(stat.st_gid)),
                AtFlags::AT_SYMLINK_NOFOLLOW,
            )
            .context("set the owner")?;
            return fchmodat(&parent, name, mode, FchmodatFlags::FollowSymlink)
                .context("set the mode");
        }
        Ok(())
    }

    /// Takes over what the layer says of the root directory itself.
    fn set_root(&self, entry: &Entry<'_, impl Read>) -> Result<()> {
        let (uid, gid, mode) = ownership(entry)?;
        fchown(&self.root, Some(uid), Some(gid)).context("set the owner")?;
        nix::sys::stat::fchmod(&self.root, mode).context("set the mode")
    }

    fn finish(self) -> Result<()> {
        for (path, time) in self.times.iter().rev() {
            let Ok(folder) = open_folder(&self.root, path) else { continue };
            utimensat(folder.as_fd(), ".", &time.to_owned(), time, UtimensatFlags::FollowSymlink)
                .with_context(|| format!("set the time of {}", path.display()))?;
        }
        Ok(())
    }
}

fn open_folder(root: &OwnedFd, path: &Path) -> nix::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT);
    openat2(root, path, how)
}

fn is_directory(parent: &OwnedFd, name: &OsStr) -> bool {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH);
    openat2(parent, name, how).is_ok()
}

/// Removes what an earlier entry of the same layer put there.
fn clear(parent: &OwnedFd, name: &OsStr) -> Result<()> {
    match unlinkat(parent, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(Errno::EISDIR) => unlinkat(parent, name, UnlinkatFlags::RemoveDir)
            .context("replace a directory that is not empty"),
        Err(errno) => Err(errno).context("replace an earlier entry"),
    }
}

fn write_file(parent: &OwnedFd, name: &OsStr, entry: &mut impl Read) -> Result<()> {
    let flags =
        OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let file = openat(parent, name, flags, Mode::S_IRUSR | Mode::S_IWUSR).context("create")?;
    io::copy(entry, &mut File::from(file)).context("write")?;
    Ok(())
}

fn make_node(
    parent: &OwnedFd,
    name: &OsStr,
    kind: SFlag,
    entry: &Entry<'_, impl Read>,
) -> Result<()> {
    let header = entry.header();
    let major = header.device_major().context("device number")?.unwrap_or(0);
    let minor = header.device_minor().context("device number")?.unwrap_or(0);
    mknodat(parent, name, kind, Mode::S_IRUSR, makedev(major.into(), minor.into()))
        .context("create a device")
}

fn link_target(entry: &Entry<'_, impl Read>) -> Result<PathBuf> {
    match entry.link_name().context("the link's target")? {
        Some(target) => Ok(target.into_owned()),
        None => bail!("a link without a target"),
    }
}

/// Owner, extended attributes, mode and time, in the order in which none undoes another.
fn set_metadata(
    parent: &OwnedFd,
    name: &OsStr,
    kind: EntryType,
    entry: &mut Entry<'_, impl Read>,
) -> Result<()> {
    let (uid, gid, mode) = ownership(entry)?;
    let time = time(entry)?;
    fchownat(parent, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)
        .context("set the owner")?;
    set_attributes(parent, name, entry)?;
    if kind != EntryType::Symlink {
        fchmodat(parent, name, mode, FchmodatFlags::FollowSymlink).context("set the mode")?;
    }
    utimensat(parent.as_fd(), name, &time, &time, UtimensatFlags::NoFollowSymlink)
        .context("set the time")
}

fn ownership(entry: &Entry<'_, impl Read>) -> Result<(Uid, Gid, Mode)> {
    let header = entry.header();
    let uid = u32::try_from(header.uid().context("owner")?).context("owner")?;
    let gid = u32::try_from(header.gid().context("group")?).context("group")?;
    let mode = Mode::from_bits_truncate(header.mode().context("mode")?);
    Ok((Uid::from_raw(uid), Gid::from_raw(gid), mode))
}

fn time(entry: &Entry<'_, impl Read>) -> Result<TimeSpec> {
    let seconds = entry.header().mtime().context("time")?;
    Ok(TimeSpec::new(i64::try_from(seconds).unwrap_or_default(), 0))
}

fn set_attributes(parent: &OwnedFd, name: &OsStr, entry: &mut Entry<'_, impl Read>) -> Result<()> {
    let Some(extensions) = entry.pax_extensions().context("pax header")? else { return Ok(()) };
    for extension in extensions {
        let extension = extension.context("pax header")?;
        let key = extension.key().unwrap_or_default();
        match key.strip_prefix("SCHILY.xattr.") {
            // overlayfs takes orders by these, so a stranger's layer must not bring them.
            Some(attribute) if attribute.starts_with("trusted.overlay.") => {}
            Some(attribute) => set_attribute(parent, name, attribute, extension.value_bytes())?,
            None => {}
        }
    }
    Ok(())
}

fn set_attribute(parent: &OwnedFd, name: &OsStr, attribute: &str, value: &[u8]) -> Result<()> {
    // There is no lsetxattrat before Linux 6.13; the link in /proc leads to the open directory.
    let path = Path::new("/proc/self/fd").join(parent.as_raw_fd().to_string()).join(name);
    match lsetxattr(&path, attribute, value, XattrFlags::empty()) {
        // A filesystem that cannot hold the attribute is no reason to refuse the image.
        Err(rustix::io::Errno::NOTSUP) => Ok(()),
        set => set.with_context(|| format!("set attribute {attribute}")),
    }
}

#[cfg(test)]
mod tests;
