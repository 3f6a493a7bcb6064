//! What a sandbox has made on the host, for those who come after a shim that died.
//!
//! A line is added before each side effect, so that whatever was made can be found again; whoever cleans
//! up goes backwards, and takes what is not there for undone. The journal lies beside what it tells of, on
//! `/run`, and never in the bundle, which containerd may remove first.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    errno::Errno,
    mount::{MntFlags, umount2},
};
use serde::{Deserialize, Serialize};
use shim_core::{
    Context, Error, Result,
    linux::start_time,
    model::{Bundle, ContainerId, Group, Namespace, Pid},
};
use shim_runc::Cage;

use crate::net;

/// Where all sandboxes have their folders.
const ROOT: &str = "/run/shim-sandbox";
const FILE: &str = "journal";

/// containerd gives `delete` five seconds.
const LIMIT: Duration = Duration::from_secs(4);

/// A line of the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    /// Whose sandbox it is; the first.
    Shim(Shim),
    /// What it is about to make.
    Makes(Effect),
}

/// A process that can be told from another one of the same pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Shim {
    pid: i32,
    /// In clock ticks since boot.
    started: u64,
}

/// Something that a sandbox makes on the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// A cgroup, and the processes in it.
    Cgroup(String),
    /// A mount, or several on each other.
    Mount(PathBuf),
    /// What joins the pod's network with the guest's.
    Network(net::Trace),
    /// A container that another runtime makes of a bundle in the sandbox's folder.
    Container {
        /// Its id.
        id: String,
        /// Its bundle.
        bundle: PathBuf,
    },
}

/// The folder of a sandbox and the journal in it.
#[derive(Debug)]
pub struct Journal {
    folder: PathBuf,
    file: File,
}

impl Journal {
    /// Makes the folder of a sandbox.
    ///
    /// # Errors
    /// `AlreadyExists` when there is one; else what could not be made.
    pub fn begin(namespace: &Namespace, id: &ContainerId) -> Result<Self> {
        let folder = folder(namespace, id);
        make_folder(&folder).with_context(|| format!("make {}", folder.display()))?;
        let path = folder.join(FILE);
        let opened = File::options().append(true).create_new(true).mode(0o600).open(&path);
        let file = opened.with_context(|| format!("make {}", path.display()))?;
        let journal = Self { folder, file };
        let pid = Pid::new(std::process::id().cast_signed())?;
        journal.add(&Line::Shim(Shim { pid: pid.raw(), started: start_time(pid)? }))?;
        Ok(journal)
    }

    /// The sandbox's folder; others can pass it, and list nothing.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Tells of what is made next.
    ///
    /// # Errors
    /// What could not be written; it must not be made then.
    pub fn note(&self, effect: &Effect) -> Result<()> {
        self.add(&Line::Makes(effect.clone()))
    }

    fn add(&self, line: &Line) -> Result<()> {
        let mut line = serde_json::to_vec(line)?;
        line.push(b'\n');
        // In one piece: a line without its end is not read.
        (&self.file).write_all(&line).context("write the sandbox's journal")
    }
}

/// Removes what a dead shim left, as `delete` is asked to for a sandbox or a container by its bundle.
///
/// A container of a pod has nothing of its own here: with its shim the whole pod is dead, and is removed
/// by whoever comes first.
///
/// # Errors
/// As [`clean_up`].
pub fn clean_up_after(namespace: &Namespace, id: &ContainerId, bundle: &Bundle) -> Result<()> {
    clean_up(namespace, id)?;
    let pod = Group::of_pod(id, bundle)?;
    let Ok(pod) = ContainerId::parse(pod.as_str()) else { return Ok(()) };
    if &pod == id || is_kept(&folder(namespace, &pod))? {
        Ok(())
    } else {
        clean_up(namespace, &pod)
    }
}

/// Another sandbox that ends may remove the folders above it in between.
fn make_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.mode(0o711);
    loop {
        if let Some(above) = folder.parent() {
            builder.recursive(true).create(above)?;
        }
        match builder.recursive(false).create(folder) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => {}
            made => return made,
        }
    }
}

/// Removes whatever is left of a sandbox. Succeeds when nothing is.
///
/// # Errors
/// What could not be removed, all of it.
pub fn clean_up(namespace: &Namespace, id: &ContainerId) -> Result<()> {
    let folder = folder(namespace, id);
    clean_up_at(&folder)?;
    for above in folder.ancestors().skip(1).take(2) {
        // Others are there yet, or it is gone.
        let _ = fs::remove_dir(above);
    }
    Ok(())
}

fn folder(namespace: &Namespace, id: &ContainerId) -> PathBuf {
    Path::new(ROOT).join(namespace.as_str()).join(id.as_str())
}

fn clean_up_at(folder: &Path) -> Result<()> {
    let mut failed = None;
    for line in read(folder)?.into_iter().rev() {
        let undone = line.and_then(|line| match line {
            Line::Makes(effect) => undo(&effect),
            Line::Shim(_) => Ok(()),
        });
        if let Err(err) = undone {
            log::warn!("{err:#}");
            failed = Some(err);
        }
    }
    if let Some(err) = failed {
        return Err(err);
    }
    remove_folder(folder)
}

/// The lines of a sandbox's journal; none without one.
fn read(folder: &Path) -> Result<Vec<Result<Line>>> {
    let path = folder.join(FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(err) if err.kind() == io::ErrorKind::NotFound => String::new(),
        Err(err) => return Err(Error::from(err).context(format!("read {}", path.display()))),
    };
    let whole = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
    let parse = |line: &str| {
        serde_json::from_str(line)
            .map_err(|err| Error::other(format!("parse {line:?} of {}: {err}", path.display())))
    };
    Ok(whole.map(parse).collect())
}

/// Whether the shim of a sandbox lives.
fn is_kept(folder: &Path) -> Result<bool> {
    let Some(Ok(Line::Shim(shim))) = read(folder)?.into_iter().next() else { return Ok(false) };
    Ok(Pid::new(shim.pid).and_then(start_time).is_ok_and(|started| started == shim.started))
}

fn undo(effect: &Effect) -> Result<()> {
    match effect {
        Effect::Cgroup(path) => Cage::at(path)?.end(LIMIT),
        Effect::Mount(path) => unmount(path),
        Effect::Network(trace) => trace.undo(),
        Effect::Container { id, bundle } => {
            shim_runc::clean_up(&ContainerId::parse(id)?, &Bundle::new(bundle)?)
        }
    }
}

/// Unmounts all that lies on a path, which nobody but us can have made a link.
///
/// # Errors
/// What the kernel says.
pub fn unmount(path: &Path) -> Result<()> {
    loop {
        match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            // Not a mount point, or not there.
            Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            Err(err) => return Err(err).with_context(|| format!("unmount {}", path.display())),
        }
    }
}

/// Removes a sandbox's folder, but nothing that is mounted there: that is somebody's data.
fn remove_folder(folder: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("list the mounts")?;
    let below = format!("{}/", folder.display());
    // The fifth field, proc_pid_mountinfo(5); no name in the folder holds what the kernel escapes.
    let at = |line: &str| line.split(' ').nth(4).map(str::to_owned);
    if let Some(at) = mounts.lines().filter_map(at).find(|at| at.starts_with(&below)) {
        return Err(Error::other(format!("{at} is still mounted: nothing below it is removed")));
    }
    match fs::remove_dir_all(folder) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => {
            Err(Error::from(err).context(format!("remove {}", folder.display())))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effects_are_read_as_they_are_written() {
        for effect in [Effect::Cgroup("/a/b".into()), Effect::Mount("/x y".into())] {
            let line = serde_json::to_string(&effect).unwrap();
            assert_eq!(serde_json::from_str::<Effect>(&line).unwrap(), effect);
        }
    }

    #[test]
    fn what_never_happened_is_undone_and_a_torn_line_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("s1");
        clean_up_at(&folder).unwrap();
        fs::create_dir(&folder).unwrap();
        let gone = Line::Makes(Effect::Mount(folder.join("gone")));
        let gone = serde_json::to_string(&gone).unwrap();
        fs::write(folder.join(FILE), format!("{gone}\n{{\"cgro")).unwrap();
        clean_up_at(&folder).unwrap();
        assert!(!folder.exists());
    }

    #[test]
    fn a_line_that_nobody_wrote_keeps_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "nonsense\n").unwrap();
        let err = clean_up_at(dir.path()).unwrap_err();
        assert!(err.to_string().contains("nonsense"), "{err:#}");
        assert!(dir.path().exists());
    }
}
