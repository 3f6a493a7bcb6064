//! The cgroup that a shim itself joins by option, before there is any child that would stay behind.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Component, Path, PathBuf},
};

use crate::error::{Context, Error, Result};

/// Moves this process, while it has one thread, into a cgroup: in every hierarchy that has it.
///
/// # Errors
/// `InvalidArgument` for a path that climbs; else the cgroup that is nowhere or can't be joined.
pub(crate) fn join(path: &str) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("read the mounts")?;
    join_in(&mounts, path)
}

fn join_in(mounts: &str, path: &str) -> Result<()> {
    let path = below_root(path)?;
    let mut is_anywhere = false;
    for (mount, file) in mounts.lines().filter_map(hierarchy) {
        let file = Path::new(mount).join(&path).join(file);
        let joined = OpenOptions::new().write(true).open(&file).and_then(|mut file| {
            // 0 stands for whoever writes (cgroups(7)).
            file.write_all(b"0")
        });
        match joined {
            Ok(()) => is_anywhere = true,
            // containerd's own shim takes those hierarchies that have it.
            Err(err) if err.kind() == io::ErrorKind::NotFound => {}
            Err(err) => return Err(err).with_context(|| format!("join {}", file.display())),
        }
    }
    if is_anywhere {
        return Ok(());
    }
    Err(Error::other(format!("no hierarchy has a cgroup /{}", path.display())))
}

/// A mounted hierarchy, and the file by which it is joined. On cgroup v1 a process of one thread
/// joins by `tasks`, which waits for nobody.
fn hierarchy(line: &str) -> Option<(&str, &'static str)> {
    // proc_pid_mountinfo(5): the mount point is the fifth field, the type stands behind the dash.
    let (head, tail) = line.split_once(" - ")?;
    let mount = head.split(' ').nth(4)?;
    match tail.split(' ').next()? {
        "cgroup" => Some((mount, "tasks")),
        "cgroup2" => Some((mount, "cgroup.procs")),
        _ => None,
    }
}

fn below_root(path: &str) -> Result<PathBuf> {
    let mut below = PathBuf::new();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => below.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(Error::invalid(format!("cgroup path {path:?} has a `..`")));
            }
        }
    }
    Ok(below)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn every_hierarchy_that_has_the_cgroup_is_joined() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().display();
        for (hierarchy, file) in [("pids", "tasks"), ("unified", "cgroup.procs")] {
            let cgroup = dir.path().join(hierarchy).join("a/b");
            fs::create_dir_all(&cgroup).unwrap();
            fs::write(cgroup.join(file), "").unwrap();
        }
        let mounts = format!(
            "30 25 0:26 / {root}/pids rw,relatime shared:9 - cgroup cgroup rw,pids\n\
             31 25 0:27 / {root}/cpu rw,relatime - cgroup cgroup rw,cpu\n\
             32 25 0:28 / {root}/unified rw,relatime - cgroup2 cgroup2 rw\n\
             33 25 0:29 / {root} rw,relatime - tmpfs tmpfs rw\n"
        );
        join_in(&mounts, "/a/b").unwrap();
        for file in ["pids/a/b/tasks", "unified/a/b/cgroup.procs"] {
            assert_eq!(fs::read_to_string(dir.path().join(file)).unwrap(), "0", "{file}");
        }
        let err = join_in(&mounts, "a/c").unwrap_err();
        assert_eq!(err.to_string(), "no hierarchy has a cgroup /a/c");
        assert_eq!(join_in(&mounts, "a/../..").unwrap_err().kind(), Kind::InvalidArgument);
    }
}
