//! Mounts that lead out of a container: files of the host that it sees, which no checkpoint holds.
//!
//! They are known by their targets in the plan, which another plan of the same spec has, too. The
//! image may have put a symlink on the way to one: CRIU wants the mount point, so that is looked up in
//! the container.
//!
//! What is mounted below a mount of the host's comes along with it, and no plan knows of that: it is
//! listed in a file beside the images.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    path::{Path, PathBuf},
};

use nix::errno::Errno;
use shim_core::{Context, Error, Result, model::Pid};

use super::Subject;
use crate::engine::{
    mountinfo::Mounted,
    plan::Source,
    step::Step,
    sys::{self, Resolve},
    wire::Text,
};

/// The list of those that came along.
const FILE: &str = "mounts.json";

/// A mount of the host's in a container, or one that may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outer {
    /// What is shown.
    source: PathBuf,
    /// It may be a directory, which is covered by an empty one instead.
    is_mask: bool,
}

/// The mounts of the host's that a live container has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    /// All of them, for CRIU to leave out.
    pub(super) names: Vec<String>,
    /// Those that no plan knows.
    along: Vec<String>,
}

/// The mounts of the host's in a container, by their targets in its plan.
pub(super) type Outers = BTreeMap<Text, Outer>;

/// Finds those of a plan.
pub(super) fn of(subject: &Subject<'_>) -> Outers {
    let plan = subject.plan;
    let hierarchies = subject.cgroup.directories();
    let outer = |source: &Path| Outer { source: source.to_owned(), is_mask: false };
    let found = plan.steps.iter().filter_map(|step| match step {
        Step::Bind { tree, target, .. } | Step::BindDevice { tree, path: target } => {
            match plan.source(*tree)? {
                Source::Tree(tree) => Some((target.clone(), outer(&tree.path))),
                Source::Device { path, .. } => Some((target.clone(), outer(path))),
                _ => None,
            }
        }
        Step::Mask { path, .. } => {
            let outer = Outer { is_mask: true, ..outer(Path::new("/dev/null")) };
            Some((path.clone(), outer))
        }
        // A hierarchy of v1 has been there before the container, with the host's cgroups in it.
        Step::Mount { kind, target, .. } if kind.as_c_str() == c"cgroup" => {
            let name = target.as_path().file_name()?;
            let own = hierarchies.iter().find(|one| one.mount.file_name() == Some(name))?;
            Some((target.clone(), outer(&own.path)))
        }
        _ => None,
    });
    found.collect()
}

impl Held {
    /// Looks at a live container, which was made by that plan.
    ///
    /// # Errors
    /// When it can't be looked at.
    pub(super) fn of(subject: &Subject<'_>, init: Pid, table: &Table) -> Result<Self> {
        let root = File::open(format!("/proc/{init}/root")).context("open the root filesystem")?;
        let outers = of(subject);
        let mut held = Self::default();
        // The points of all that the plan mounts, and the target of one of the host's.
        let mut planned: BTreeMap<&Path, Option<&Text>> = BTreeMap::new();
        for target in subject.plan.steps.iter().filter_map(target) {
            let outer = outers.get_key_value(target);
            let is_mask = outer.is_some_and(|(_, outer)| outer.is_mask);
            let Some(point) = table.point(root.as_fd(), target, is_mask)? else { continue };
            if let Some((target, _)) = outer {
                held.names.push(name(point, target.as_path()));
            }
            planned.insert(point, outer.filter(|_| !is_mask).map(|(target, _)| target));
        }
        for point in table.0.values().filter(|point| !planned.contains_key(point.as_path())) {
            let below = point.ancestors().find_map(|above| Some((above, *planned.get(above)?)));
            let Some((above, Some(target))) = below else { continue };
            let Ok(rest) = point.strip_prefix(above) else { continue };
            let target = target.as_path().join(rest);
            held.names.push(name(point, &target));
            held.along.push(target.to_string_lossy().into_owned());
        }
        Ok(held)
    }

    /// Writes the list beside the images, if there is anything to list.
    ///
    /// # Errors
    /// What the disk says.
    pub(super) fn write(&self, image: &Path) -> Result<()> {
        let path = image.join(FILE);
        if self.along.is_empty() {
            // An earlier checkpoint in the same place may have left one.
            let _ = fs::remove_file(path);
            return Ok(());
        }
        let written = fs::write(&path, serde_json::to_vec(&self.along)?);
        written.with_context(|| format!("write {}", path.display()))
    }
}

/// What CRIU knows a mount by.
fn name(point: &Path, target: &Path) -> String {
    format!("mnt[{}]:{}", point.display(), target.display())
}

/// Where a step mounts something.
fn target(step: &Step) -> Option<&Text> {
    match step {
        Step::Mount { target, .. }
        | Step::MountWhole { target, .. }
        | Step::Bind { target, .. }
        | Step::BindDevice { path: target, .. }
        | Step::Mask { path: target, .. }
        | Step::Protect { path: target } => Some(target),
        _ => None,
    }
}

/// Says what CRIU is to put where it has left something out.
///
/// # Errors
/// When the list beside the images makes no sense.
pub(super) fn given(outers: &Outers, image: &Path) -> Result<Vec<String>> {
    let mut given: Vec<_> =
        outers.iter().map(|(target, outer)| name(target.as_path(), &outer.source)).collect();
    let path = image.join(FILE);
    let along: Vec<String> = match fs::read(&path) {
        Ok(text) => {
            serde_json::from_slice(&text).with_context(|| format!("read {}", path.display()))?
        }
        // Most containers have none.
        Err(err) if err.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(err) => return Err(Error::from(err).context(format!("read {}", path.display()))),
    };
    for target in along.iter().map(Path::new) {
        let sources = target.ancestors().filter_map(|above| {
            let (_, outer) = outers.iter().find(|(target, _)| target.as_path() == above)?;
            Some(outer.source.join(target.strip_prefix(above).ok()?))
        });
        given.extend(sources.take(1).map(|source| name(target, &source)));
    }
    Ok(given)
}

/// The mounts of a process: their points by their ids.
#[derive(Debug)]
pub(super) struct Table(BTreeMap<u64, PathBuf>);

impl Table {
    /// Reads the table of a process.
    ///
    /// # Errors
    /// When it has ended.
    pub(super) fn of(pid: Pid) -> Result<Self> {
        let path = format!("/proc/{pid}/mountinfo");
        let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let mounts = text.lines().filter_map(Mounted::parse);
        Ok(Self(mounts.filter_map(|one| Some((one.id.parse().ok()?, one.path()))).collect()))
    }

    /// Whether a mount is one of them.
    pub(super) fn has(&self, mount: u64) -> bool {
        self.0.contains_key(&mount)
    }

    /// The mount point that a target has led to, if something is mounted there.
    fn point(&self, root: BorrowedFd<'_>, target: &Text, is_mask: bool) -> Result<Option<&Path>> {
        let opened = sys::open_in(root, target.as_c_str(), libc::O_PATH, 0, Resolve::IN_ROOT);
        let opened = match opened {
            Ok(opened) => File::from(opened),
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
            Err(errno) => return Err(errno).with_context(|| format!("look at {target}")),
        };
        if is_mask && opened.metadata()?.is_dir() {
            return Ok(None);
        }
        let number = opened.as_raw_fd();
        let mount = mount_of(&fs::read_to_string(format!("/proc/self/fdinfo/{number}"))?);
        let Some(point) = mount.and_then(|mount| self.0.get(&mount)) else { return Ok(None) };
        // The mount of whatever is above it would be found as well.
        let is_there = fs::read_link(format!("/proc/self/fd/{number}"))? == *point;
        Ok(is_there.then_some(point))
    }
}

/// The mount that an open file is on: a line of proc_pid_fdinfo(5).
pub(super) fn mount_of(fdinfo: &str) -> Option<u64> {
    fdinfo.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_of_a_file_is_one_of_its_lines() {
        assert_eq!(mount_of("pos:\t0\nflags:\t0100000\nmnt_id:\t24\nino:\t3\n"), Some(24));
        assert_eq!(mount_of("pos:\t0\n"), None);
    }

    #[test]
    fn what_is_no_mount_point_is_not_found_in_a_table() {
        let own = Pid::new(std::process::id().cast_signed()).unwrap();
        let table = Table::of(own).unwrap();
        let root = File::open("/").unwrap();
        let point = |path: &str| table.point(root.as_fd(), &Text::new(path).unwrap(), false);
        assert_eq!(point("/proc").unwrap(), Some(Path::new("/proc")));
        assert_eq!(point("/proc/self").unwrap(), None);
        assert_eq!(point("/nowhere").unwrap(), None);
        assert_eq!(table.point(root.as_fd(), &Text::from(c"/proc"), true).unwrap(), None);
    }
}
