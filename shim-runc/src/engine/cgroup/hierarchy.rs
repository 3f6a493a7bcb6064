//! Which cgroup hierarchies this host has, and where they are mounted.
//!
//! Three layouts exist: all controllers on v1 hierarchies; a v2 hierarchy beside those (hybrid),
//! which may hold a few controllers too; v2 alone.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use shim_core::{Context, Error, Result};

/// The controllers of v1 hierarchies that containers join.
const CONTROLLERS: [&str; 14] = [
    "blkio",
    "cpu",
    "cpuacct",
    "cpuset",
    "devices",
    "freezer",
    "hugetlb",
    "memory",
    "misc",
    "net_cls",
    "net_prio",
    "perf_event",
    "pids",
    "rdma",
];

/// systemd's own hierarchy, without controllers: it tells services apart by it.
const NAMED: &str = "name=systemd";

/// How the host's controllers are spread over the two versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Every controller has a v1 hierarchy.
    V1,
    /// v1 hierarchies, and a v2 one beside them.
    Hybrid,
    /// One v2 hierarchy.
    V2,
}

/// The hierarchies of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hierarchies {
    pub(super) mode: Mode,
    pub(super) v1: Vec<Hierarchy>,
    pub(super) unified: Option<Unified>,
}

/// A v1 hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hierarchy {
    /// `cpu,cpuacct` or `name=systemd`.
    pub(super) name: String,
    pub(super) root: PathBuf,
}

/// The v2 hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unified {
    pub(super) root: PathBuf,
    /// What `cgroup.controllers` lists at its root.
    pub(super) controllers: Vec<String>,
}

impl Hierarchies {
    /// The hierarchies that this process sees, found once.
    ///
    /// # Errors
    /// When none is mounted.
    pub(crate) fn of_host() -> Result<Arc<Self>> {
        static HOST: OnceLock<Arc<Hierarchies>> = OnceLock::new();
        if let Some(found) = HOST.get() {
            return Ok(Arc::clone(found));
        }
        let mounts = "/proc/self/mountinfo";
        let text = fs::read_to_string(mounts).with_context(|| format!("read {mounts}"))?;
        let found = Arc::new(Self::find(&text)?);
        Ok(Arc::clone(HOST.get_or_init(|| found)))
    }

    /// Finds the hierarchies in a mount table, in the form of `/proc/self/mountinfo`.
    ///
    /// # Errors
    /// When none is mounted.
    pub(crate) fn find(mountinfo: &str) -> Result<Self> {
        let mounts: Vec<_> = mountinfo.lines().filter_map(Mounted::parse).collect();
        let mut v1: Vec<Hierarchy> = Vec::new();
        let mut unified = None;
        for mount in mounts.iter().filter(|mount| mount.kind.starts_with("cgroup")) {
            if mounts.iter().any(|other| other.hides(mount, &mounts)) {
                continue;
            }
            match mount.kind {
                "cgroup2" if unified.is_none() => unified = Some(Unified::at(mount.path())?),
                // The same hierarchy may be mounted twice: the first one will do.
                "cgroup" => v1.extend(
                    mount
                        .hierarchy()
                        .filter(|found| !v1.iter().any(|known| known.name == found.name)),
                ),
                _ => {}
            }
        }
        let has_controllers = v1.iter().any(|hierarchy| hierarchy.name != NAMED);
        let mode = match (has_controllers, &unified) {
            (true, None) => Mode::V1,
            (true, Some(_)) => Mode::Hybrid,
            (false, Some(_)) => Mode::V2,
            (false, None) => return Err(Error::other("no cgroup hierarchy is mounted")),
        };
        if mode == Mode::V2 {
            v1.clear();
        }
        Ok(Self { mode, v1, unified })
    }

    /// None of them, on a host that has them.
    pub(super) fn none(&self) -> Self {
        Self { mode: self.mode, v1: Vec::new(), unified: None }
    }

    pub(super) fn v1_of(&self, controller: &str) -> Option<&Hierarchy> {
        self.v1.iter().find(|hierarchy| hierarchy.name.split(',').any(|name| name == controller))
    }

    pub(super) fn unified_of(&self, controller: &str) -> Option<&Unified> {
        self.unified.as_ref().filter(|unified| unified.controllers.iter().any(|c| c == controller))
    }
}

impl Unified {
    fn at(root: PathBuf) -> Result<Self> {
        let file = root.join("cgroup.controllers");
        let list = match fs::read_to_string(&file) {
            Ok(list) => list,
            Err(err) if err.kind() == io::ErrorKind::NotFound => String::new(),
            Err(err) => return Err(Error::from(err).context(format!("read {}", file.display()))),
        };
        Ok(Self { root, controllers: list.split_whitespace().map(str::to_owned).collect() })
    }
}

/// A line of mountinfo, as far as it matters here.
#[derive(Clone, Copy)]
struct Mounted<'a> {
    id: &'a str,
    parent: &'a str,
    /// With the kernel's escapes.
    at: &'a str,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mounted<'a> {
    /// `31 23 0:28 / /sys/fs/cgroup rw,relatime shared:9 - tmpfs tmpfs rw,mode=755`
    fn parse(line: &'a str) -> Option<Self> {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ');
        let (id, parent, at) = (left.next()?, left.next()?, left.nth(2)?);
        let mut right = right.split(' ');
        Some(Self { id, parent, at, kind: right.next()?, options: right.nth(1).unwrap_or("") })
    }

    /// Whether a later mount on the same directory, or on one above, covers another one.
    fn hides(&self, other: &Self, all: &[Self]) -> bool {
        let covers = match other.at.strip_prefix(self.at) {
            Some(rest) => rest.is_empty() || rest.starts_with('/') || self.at == "/",
            None => false,
        };
        covers && self.id != other.id && !self.is_below(other, all)
    }

    /// Whether another mount stands on this one, directly or not.
    fn is_below(&self, other: &Self, all: &[Self]) -> bool {
        let mut parent = other.parent;
        // The table is not trusted to be free of loops.
        for _ in 0..all.len() {
            if parent == self.id {
                return true;
            }
            let Some(above) = all.iter().find(|mount| mount.id == parent) else { return false };
            parent = above.parent;
        }
        false
    }

    fn hierarchy(&self) -> Option<Hierarchy> {
        let known = |name: &&str| *name == NAMED || CONTROLLERS.contains(name);
        let names: Vec<_> = self.options.split(',').filter(known).collect();
        (!names.is_empty()).then(|| Hierarchy { name: names.join(","), root: self.path() })
    }

    /// The mount point without the kernel's `\040` for a blank and the like.
    fn path(&self) -> PathBuf {
        if !self.at.contains('\\') {
            return PathBuf::from(self.at);
        }
        let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
        let plain = escapes
            .iter()
            .fold(self.at.to_owned(), |text, (escape, plain)| text.replace(escape, plain));
        Path::new(&plain).to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
22 27 0:21 / /proc rw,relatime - proc proc rw
23 27 0:22 / /sys rw,relatime - sysfs sysfs rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
33 31 0:31 / /sys/fs/cgroup/cpuset rw shared:4 master:2 - cgroup cgroup rw,cpuset,clone_children
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
42 31 0:39 / /sys/fs/cgroup/elogind rw - cgroup cgroup rw,name=elogind
";

    fn names(found: &Hierarchies) -> Vec<&str> {
        found.v1.iter().map(|hierarchy| hierarchy.name.as_str()).collect()
    }

    #[test]
    fn v1_beside_v2_is_hybrid() {
        let found = Hierarchies::find(HYBRID).unwrap();
        assert_eq!(found.mode, Mode::Hybrid);
        assert_eq!(names(&found), ["cpu,cpuacct", "cpuset", "name=systemd"]);
        assert_eq!(found.v1_of("cpuacct").unwrap().root, Path::new("/sys/fs/cgroup/cpu,cpuacct"));
        assert!(found.v1_of("memory").is_none());
        assert_eq!(found.unified.unwrap().root, Path::new("/sys/fs/cgroup/unified"));
    }

    #[test]
    fn v1_alone_needs_no_v2() {
        let text: String = HYBRID
            .lines()
            .filter(|line| !line.contains("cgroup2"))
            .map(|l| format!("{l}\n"))
            .collect();
        let found = Hierarchies::find(&text).unwrap();
        assert_eq!((found.mode, found.unified), (Mode::V1, None));
    }

    #[test]
    fn v2_mounted_over_the_others_is_v2() {
        let text = format!("{HYBRID}50 31 0:38 / /sys/fs/cgroup rw - cgroup2 none rw\n");
        let found = Hierarchies::find(&text).unwrap();
        assert_eq!(found.mode, Mode::V2);
        assert!(found.v1.is_empty());
        assert_eq!(found.unified.unwrap().root, Path::new("/sys/fs/cgroup"));
    }

    #[test]
    fn a_root_that_is_listed_late_hides_nothing_of_its_own() {
        let text =
            "41 27 0:38 / /cgroup2 rw - cgroup2 none rw\n27 1 254:0 / / rw - ext4 /dev/vda rw\n";
        assert_eq!(Hierarchies::find(text).unwrap().mode, Mode::V2);
    }

    #[test]
    fn controllers_of_v2_are_read_at_its_root() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("cgroup.controllers"), "cpu io hugetlb\n").unwrap();
        let text = format!("41 1 0:38 / {} rw - cgroup2 none rw\n", root.path().display());
        let found = Hierarchies::find(&text).unwrap();
        assert!(found.unified_of("io").is_some());
        assert!(found.unified_of("memory").is_none());
    }

    #[test]
    fn blanks_in_mount_points_are_escaped() {
        let found =
            Hierarchies::find("41 1 0:38 / /a\\040b\\134 rw - cgroup cgroup rw,memory\n").unwrap();
        assert_eq!(found.v1[0].root, Path::new("/a b\\"));
    }

    #[test]
    fn a_host_without_cgroups_is_refused() {
        assert!(Hierarchies::find("27 1 254:0 / / rw - ext4 /dev/vda rw\n").is_err());
        let named = "40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n";
        assert!(Hierarchies::find(named).is_err());
    }
}
