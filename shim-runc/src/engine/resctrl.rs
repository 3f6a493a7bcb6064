//! Shares of cache and memory bandwidth, as the resctrl filesystem gives them (the kernel's
//! `filesystems/resctrl.rst`; `linux.intelRdt` of the OCI runtime spec).
//!
//! A class of service is a directory; a container has one of its own, under its id, or one that
//! `closID` names and other containers may share. What is counted for a container alone is a directory
//! below its class's.

mod counters;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use oci_spec::runtime::{LinuxIntelRdt, Spec};
use serde::{Deserialize, Serialize};
use shim_core::{Context, Error, Kind, Result, model::Pid};

pub use self::counters::{BandwidthLimits, CacheLimits, Occupancy, Shares, Traffic};

/// A container's place in the filesystem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    root: PathBuf,
    /// The class's directory.
    class: PathBuf,
    /// Nobody else's.
    is_own: bool,
    /// The directory that counts for the container alone.
    monitor: Option<PathBuf>,
    /// Lines of the file `schemata`.
    schemata: Vec<String>,
}

/// What a container leaves, the innermost first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Left(Vec<PathBuf>);

impl Group {
    /// The place that a spec asks for.
    ///
    /// # Errors
    /// `Unsupported` where the filesystem is not mounted; `InvalidArgument` for what makes no sense.
    pub(crate) fn of(spec: &Spec, id: &str) -> Result<Option<Self>> {
        let linux = spec.linux().as_ref();
        let asked = linux.and_then(|linux| linux.intel_rdt().as_ref());
        asked.map(|asked| Self::asked(asked, id)).transpose().context("linux.intelRdt")
    }

    /// The place that is asked for apart from a spec.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub(crate) fn asked(asked: &LinuxIntelRdt, id: &str) -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").context("list the mounts")?;
        let root = root(&mounts).ok_or_else(|| {
            Error::new(Kind::Unsupported, "no resctrl filesystem is mounted on this host")
        })?;
        Self::below(root, asked, id)
    }

    fn below(root: PathBuf, asked: &LinuxIntelRdt, id: &str) -> Result<Self> {
        let class = match asked.clos_id().as_deref().filter(|class| !class.is_empty()) {
            None => root.join(id),
            // The class of all that are in no other.
            Some("/") => root.clone(),
            Some(name) if is_name(name) => root.join(name),
            Some(name) => return Err(Error::invalid(format!("closID {name:?} is no file name"))),
        };
        let is_own = asked.clos_id().as_ref().is_none_or(String::is_empty);
        let monitor = watches(asked).then(|| class.join("mon_groups").join(id));
        Ok(Self { root, is_own, monitor, schemata: schemata(asked), class })
    }

    /// What there will be to remove.
    pub(crate) fn left(&self) -> Left {
        let class = self.is_own.then(|| self.class.clone());
        Left(self.monitor.clone().into_iter().chain(class).collect())
    }

    /// Makes the directories. What is made and fails is for [`Left::remove`].
    ///
    /// # Errors
    /// The kernel's reason; `FailedPrecondition` when a class is not there, or is not what is asked for.
    pub(crate) fn make(&self) -> Result<()> {
        let is_there = self.class.is_dir();
        if !is_there {
            if !self.is_own && self.schemata.is_empty() {
                let why = format!("{}: there is no such class", self.class.display());
                return Err(Error::new(Kind::FailedPrecondition, why));
            }
            fs::create_dir(&self.class).map_err(|err| self.explain(err, &self.class))?;
        }
        if is_there && !self.is_own {
            self.compare()?;
        } else {
            self.set()?;
        }
        match &self.monitor {
            Some(monitor) => fs::create_dir(monitor).map_err(|err| self.explain(err, monitor)),
            None => Ok(()),
        }
    }

    /// Puts a process there; those that it makes follow it.
    ///
    /// # Errors
    /// The kernel's reason.
    pub(crate) fn join(&self, pid: Pid) -> Result<()> {
        let directories = [Some(&self.class), self.monitor.as_ref()];
        directories
            .into_iter()
            .flatten()
            .try_for_each(|directory| self.write(&directory.join("tasks"), &pid.to_string()))
    }

    /// Whether the lines are the container's to change.
    ///
    /// # Errors
    /// `FailedPrecondition` for a class that others may use.
    pub(crate) fn may_change(&self) -> Result<()> {
        if self.is_own {
            return Ok(());
        }
        let why = format!("{} is not the container's own", self.class.display());
        Err(Error::new(Kind::FailedPrecondition, why))
    }

    /// Sets the lines.
    ///
    /// # Errors
    /// The kernel's reason.
    pub(crate) fn set(&self) -> Result<()> {
        if self.schemata.is_empty() {
            return Ok(());
        }
        let mut text = self.schemata.join("\n");
        text.push('\n');
        self.write(&self.class.join("schemata"), &text)
    }

    /// Whether a class that others use is the one that is asked for.
    fn compare(&self) -> Result<()> {
        let path = self.class.join("schemata");
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let has = |line: &str| text.lines().any(|known| known.trim() == line.trim());
        match self.schemata.iter().find(|line| !has(line)) {
            None => Ok(()),
            Some(line) => {
                let why = format!("{} has no {line:?}, and others may use it", path.display());
                Err(Error::new(Kind::FailedPrecondition, why))
            }
        }
    }

    fn write(&self, path: &Path, text: &str) -> Result<()> {
        fs::write(path, text).map_err(|err| self.explain(err, path))
    }

    /// An error, with what the kernel says of its last command.
    fn explain(&self, err: io::Error, path: &Path) -> Error {
        let said = fs::read_to_string(self.root.join("info/last_cmd_status")).unwrap_or_default();
        let said = match said.trim() {
            "" | "ok" => String::new(),
            said => format!(" ({said})"),
        };
        Error::from(err).context(format!("{}{said}", path.display()))
    }
}

impl Left {
    /// Removes what is there of it.
    ///
    /// # Errors
    /// What stays.
    pub(crate) fn remove(&self) -> Result<()> {
        self.0.iter().try_for_each(|directory| match fs::remove_dir(directory) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.with_context(|| format!("remove {}", directory.display())),
        })
    }
}

/// The older names, of before 1.3, mean the same.
fn watches(asked: &LinuxIntelRdt) -> bool {
    let asked = [asked.enable_monitoring(), asked.enable_cmt(), asked.enable_mbm()];
    asked.contains(&&Some(true))
}

fn is_name(name: &str) -> bool {
    !matches!(name, "." | "..") && !name.contains('/')
}

/// Where the filesystem is mounted, proc_pid_mountinfo(5).
fn root(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        let is_it = kind.split(' ').next() == Some("resctrl");
        is_it.then(|| place.split(' ').nth(4).map(PathBuf::from)).flatten()
    })
}

/// The lines to write. Bandwidth among the lines for the cache gives way to its own.
fn schemata(asked: &LinuxIntelRdt) -> Vec<String> {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let (cache, bandwidth) = (text(asked.l3_cache_schema()), text(asked.mem_bw_schema()));
    let cache = cache.lines().filter(|line| bandwidth.is_empty() || !line.starts_with("MB:"));
    let named = cache.chain(bandwidth.lines()).map(str::to_owned);
    let whole = asked.schemata().iter().flatten().cloned();
    named.chain(whole).filter(|line| !line.trim().is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    pub(super) fn group(root: &Path, asked: Value) -> Result<Group> {
        Group::below(root.to_owned(), &serde_json::from_value(asked).unwrap(), "c1")
    }

    #[test]
    fn the_filesystem_is_found_wherever_it_is() {
        let mounts = "22 1 0:20 / /sys rw shared:7 - sysfs sysfs rw\n\
            31 22 0:25 / /elsewhere rw,relatime - resctrl resctrl rw\n";
        assert_eq!(root(mounts), Some(PathBuf::from("/elsewhere")));
        assert_eq!(root(mounts.lines().next().unwrap()), None);
    }

    #[test]
    fn a_class_of_its_own_is_made_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let asked = json!({ "l3CacheSchema": "L3:0=f\nMB:0=10", "memBwSchema": "MB:0=70",
            "schemata": ["L2:0=3"] });
        let less = group(dir.path(), json!({ "memBwSchema": "MB:0=20" })).unwrap();
        let group = group(dir.path(), asked).unwrap();
        group.make().unwrap();
        let class = dir.path().join("c1");
        assert_eq!(
            fs::read_to_string(class.join("schemata")).unwrap(),
            "L3:0=f\nMB:0=70\nL2:0=3\n"
        );
        less.set().unwrap();
        assert_eq!(fs::read_to_string(class.join("schemata")).unwrap(), "MB:0=20\n");
        group.join(Pid::new(7).unwrap()).unwrap();
        assert_eq!(fs::read_to_string(class.join("tasks")).unwrap(), "7");
        // The kernel's own files go with their directory, these do not.
        fs::remove_file(class.join("schemata")).unwrap();
        fs::remove_file(class.join("tasks")).unwrap();
        group.left().remove().unwrap();
        assert!(!class.exists());
        group.left().remove().unwrap();
    }

    #[test]
    fn a_shared_class_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let class = dir.path().join("gold");
        let missing = group(dir.path(), json!({ "closID": "gold" })).unwrap();
        assert_eq!(missing.make().unwrap_err().kind(), Kind::FailedPrecondition);
        fs::create_dir_all(class.join("mon_groups")).unwrap();
        fs::write(class.join("schemata"), "    L3:0=f\n    MB:0=70\n").unwrap();
        let asked = json!({ "closID": "gold", "memBwSchema": "MB:0=70", "enableMonitoring": true });
        let same = group(dir.path(), asked).unwrap();
        same.make().unwrap();
        assert!(class.join("mon_groups/c1").is_dir());
        assert_eq!(same.left(), Left(vec![class.join("mon_groups/c1")]));
        same.left().remove().unwrap();
        assert!(class.is_dir());
        let other =
            group(dir.path(), json!({ "closID": "gold", "schemata": ["MB:0=20"] })).unwrap();
        assert_eq!(other.may_change().unwrap_err().kind(), Kind::FailedPrecondition);
        let err = other.make().unwrap_err();
        assert!(err.to_string().contains("MB:0=20"), "{err}");
    }

    #[test]
    fn a_class_is_a_name() {
        for bad in ["..", ".", "a/b", "/a"] {
            assert!(group(Path::new("/r"), json!({ "closID": bad })).is_err(), "{bad}");
        }
        let whole = group(Path::new("/r"), json!({ "closID": "/" })).unwrap();
        assert_eq!((whole.class.as_path(), whole.is_own), (Path::new("/r"), false));
    }
}
