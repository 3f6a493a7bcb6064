//! The cgroup hierarchies of the machine, from outside: what a container's limits really are.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};

use crate::mounts::{self, Mount};
use crate::wait::{self, SOON};

/// The machine's hierarchies: one a v1 controller, and the unified one.
///
/// # Errors
/// When the mounts cannot be read.
pub fn hierarchies() -> Result<Vec<Mount>> {
    let mut found = mounts::all()?;
    found.retain(|mount| mount.kind == "cgroup" || mount.kind == "cgroup2");
    Ok(found)
}

/// Every cgroup below the folders called `mark`, deepest first, without those folders themselves.
///
/// containerd puts a container's cgroup below its namespace's, and no shim removes the latter.
///
/// # Errors
/// When the mounts cannot be read.
pub fn marked(mark: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for hierarchy in hierarchies()? {
        walk(&hierarchy.target, &mut |dir| {
            let name = dir.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let inside = dir.components().any(|part| part.as_os_str() == mark);
            if name != mark && (inside || name.contains(mark)) {
                found.push(dir.to_owned());
            }
        });
    }
    found.sort_by_key(|dir| std::cmp::Reverse(dir.components().count()));
    Ok(found)
}

/// Removes the folders of every mark that `is_over`, with what is in them.
///
/// # Errors
/// When one of them stays: a process is in it.
pub fn sweep(is_over: impl Fn(&str) -> bool) -> Result<()> {
    wait::until("empty cgroups", SOON, || {
        let mut left = Ok(());
        for hierarchy in hierarchies()? {
            walk(&hierarchy.target, &mut |dir| {
                let mut parts = dir.components().filter_map(|part| part.as_os_str().to_str());
                if parts.any(&is_over)
                    && let Err(error) = remove(dir)
                {
                    left = Err(anyhow!("remove {}: {error}", dir.display()));
                }
            });
        }
        left
    })
}

/// Removes a cgroup that has no process any more, or will have none once the killed ones may die.
///
/// # Errors
/// When there is still one.
pub fn remove(dir: &Path) -> io::Result<()> {
    // A frozen process does not even die: it would hold up its whole PID namespace.
    for (file, thawed) in [("freezer.state", "THAWED"), ("cgroup.freeze", "0")] {
        // Each is there in one version only.
        let _ = fs::OpenOptions::new()
            .write(true)
            .open(dir.join(file))
            .and_then(|mut file| file.write_all(thawed.as_bytes()));
    }
    fs::remove_dir(dir)
}

/// A limit or a count, whatever file each cgroup version keeps it in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Value {
    /// The memory limit in bytes.
    MemoryLimit,
    /// The CPU time a period, in microseconds.
    CpuQuota,
    /// How often the quota was used up.
    Throttled,
    /// The limit of processes.
    PidsLimit,
    /// The number of processes.
    Pids,
}

impl Value {
    /// Controller, file of v1, file of v2, key in the file.
    fn place(self) -> (&'static str, &'static str, &'static str, &'static str) {
        match self {
            Self::MemoryLimit => ("memory", "memory.limit_in_bytes", "memory.max", ""),
            Self::CpuQuota => ("cpu", "cpu.cfs_quota_us", "cpu.max", ""),
            Self::Throttled => ("cpu", "cpu.stat", "cpu.stat", "nr_throttled"),
            Self::PidsLimit => ("pids", "pids.max", "pids.max", ""),
            Self::Pids => ("pids", "pids.current", "pids.current", ""),
        }
    }
}

/// Reads a value of the cgroup that a process is in.
///
/// # Errors
/// When the process or its cgroup is gone, or the value is no number (`max`).
pub fn read(pid: i32, value: Value) -> Result<u64> {
    let (controller, v1, v2, key) = value.place();
    let hierarchies = hierarchies()?;
    let has = |mount: &&Mount| mount.options.split(',').any(|option| option == controller);
    let (mount, name, file) = match hierarchies.iter().find(has) {
        Some(mount) => (mount, controller, v1),
        None => (hierarchies.first().context("there are no cgroups")?, "", v2),
    };
    let file = mount.target.join(path(pid, name)?).join(file);
    let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let number = line.and_then(|line| line.split_whitespace().next()).unwrap_or_default();
    number.parse().with_context(|| format!("no number in {}: {text:?}", file.display()))
}

/// Whether the machine has cgroups of version 2 alone.
///
/// # Errors
/// When the mounts cannot be read.
pub fn is_unified() -> Result<bool> {
    Ok(hierarchies()?.iter().all(|mount| mount.kind == "cgroup2"))
}

/// Reads a file of the cgroup that a process is in: in version 1 that of the controller's hierarchy.
///
/// # Errors
/// When the process or its cgroup is gone, or has no such file.
pub fn read_file(pid: i32, controller: &str, file: &str) -> Result<String> {
    let (unified, hierarchies) = (is_unified()?, hierarchies()?);
    let has =
        |mount: &&Mount| unified || mount.options.split(',').any(|option| option == controller);
    let mount = hierarchies.iter().find(has).with_context(|| format!("no {controller} here"))?;
    let path = path(pid, if unified { "" } else { controller })?;
    let file = mount.target.join(path).join(file);
    fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))
}

/// The cgroup of a process in the hierarchy of a controller; the unified one has no name.
fn path(pid: i32, controller: &str) -> Result<PathBuf> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let path = text.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        controllers.split(',').any(|name| name == controller).then_some(path)
    });
    let path = path.with_context(|| format!("{pid} is in no {controller} cgroup"))?;
    Ok(path.trim_start_matches('/').into())
}

/// Calls `visit` for each folder below `dir`, children first.
fn walk(dir: &Path, visit: &mut impl FnMut(&Path)) {
    // A cgroup may go while we look.
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), visit);
            visit(&entry.path());
        }
    }
}
