//! Where a runtime works: a tmpfs of its own in a mount namespace of ours, and one cgroup.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::PathBuf,
};

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, unshare};
use rustix::mount::{self, MountFlags, MountPropagationFlags, UnmountFlags};

use super::subject::Subject;

/// The container's name, with every runtime.
pub(super) const ID: &str = "c1";

/// The device whose mode and owner have to stay as they are.
pub(super) const NULL: &str = "/dev/null";

/// Gives this process a mount namespace that nobody else hears of. There is one thread as yet.
pub(super) fn part_from_the_host() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("make a mount namespace (needs root)")?;
    let all = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount::mount_change("/", all).context("make every mount private")?;
    // Only a host with both versions of cgroups has it.
    let _ = mount::unmount("/sys/fs/cgroup/unified", UnmountFlags::DETACH);
    Ok(())
}

/// What every container has.
pub(super) struct Programs {
    pub(super) probe: PathBuf,
    pub(super) busybox: PathBuf,
}

/// The folder of all places; dropped, it takes them along.
pub(super) struct Whole(PathBuf);

impl Whole {
    pub(super) fn new() -> Result<Self> {
        let path = PathBuf::from(format!("/run/compare-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// One runtime's place.
pub(super) struct Place {
    /// The top of its tmpfs.
    pub(super) top: PathBuf,
    /// The bundle, and only what belongs to it.
    pub(super) bundle: PathBuf,
    /// Below each hierarchy: the folder that the container's cgroup is in.
    pub(super) group: String,
    /// Mounts of the bundle that were there before its container.
    pub(super) laid_out: Vec<PathBuf>,
}

impl Place {
    /// Made by the thread that works there: its mount namespace is its own.
    pub(super) fn new(whole: &Whole, subject: &Subject, programs: &Programs) -> Result<Self> {
        unshare(CloneFlags::CLONE_NEWNS).context("make a mount namespace for a runtime")?;
        let name = subject.name.replace(' ', "-");
        let top = whole.0.join(&name);
        fs::create_dir(&top)?;
        mount::mount("tmpfs", &top, "tmpfs", MountFlags::empty(), Some(c"mode=755"))
            .with_context(|| format!("mount a tmpfs on {}", top.display()))?;
        for (name, program) in [("probe", &programs.probe), ("busybox", &programs.busybox)] {
            fs::copy(program, top.join(name))
                .with_context(|| format!("copy {}", program.display()))?;
        }
        // A runtime may give the container the host's: what is done to it is seen, and harms nobody.
        let null = top.join("null");
        let device = rustix::fs::makedev(1, 3);
        let kind = rustix::fs::FileType::CharacterDevice;
        rustix::fs::mknodat(rustix::fs::CWD, &null, kind, 0o666.into(), device)?;
        mount::mount_bind(&null, NULL).context("cover /dev/null")?;
        let group = format!("compare-{}-{name}", std::process::id());
        Ok(Self { bundle: top.join("bundle"), top, group, laid_out: Vec::new() })
    }

    /// What the runtime keeps of its containers.
    pub(super) fn state(&self) -> PathBuf {
        self.top.join("state")
    }

    /// The mode and the owner of the host's `/dev/null`; they are put right for the next bundle.
    pub(super) fn null(&self) -> Result<String> {
        let found = fs::metadata(NULL)?;
        chown(NULL, Some(0), Some(0))?;
        fs::set_permissions(NULL, PermissionsExt::from_mode(0o666))?;
        Ok(format!("{:o} {}:{}", found.mode() & 0o7777, found.uid(), found.gid()))
    }

    /// An empty bundle with a root filesystem in which there is the probe and a busybox.
    pub(super) fn clear(&self) -> Result<()> {
        self.remove()?;
        let root = self.bundle.join("rootfs");
        for folder in ["bin", "dev", "etc", "proc", "sys", "tmp", "root", "work"] {
            fs::create_dir_all(root.join(folder))?;
        }
        fs::set_permissions(root.join("tmp"), PermissionsExt::from_mode(0o1777))?;
        fs::hard_link(self.top.join("probe"), root.join("probe"))?;
        fs::hard_link(self.top.join("busybox"), root.join("bin/busybox"))?;
        std::os::unix::fs::symlink("busybox", root.join("bin/sh"))?;
        let passwd = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n";
        fs::write(root.join("etc/passwd"), passwd)?;
        Ok(fs::write(root.join("etc/group"), "root:x:0:\nuser:x:1000:\n")?)
    }

    /// Removes the bundle, with what is mounted in it.
    pub(super) fn remove(&self) -> Result<()> {
        for mounted in self.mounts()?.iter().rev() {
            mount::unmount(mounted, UnmountFlags::DETACH)
                .with_context(|| format!("unmount {}", mounted.display()))?;
        }
        match fs::remove_dir_all(&self.bundle) {
            Err(err) if err.kind() != std::io::ErrorKind::NotFound => {
                Err(err).context("remove the bundle")
            }
            _ => Ok(()),
        }
    }

    /// What is mounted below the tmpfs, in this namespace.
    pub(super) fn mounts(&self) -> Result<Vec<PathBuf>> {
        let text = fs::read_to_string("/proc/thread-self/mountinfo").context("list the mounts")?;
        let places = text.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
        Ok(places.filter(|place| place.starts_with(&self.top) && *place != self.top).collect())
    }

    /// The container's directory in each hierarchy that there is, by the hierarchy's name.
    pub(super) fn cgroups(&self) -> Vec<(String, PathBuf)> {
        let entries = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
        let mut all: Vec<_> = entries
            .filter(|entry| entry.path().is_dir() && !entry.path().is_symlink())
            .map(|entry| {
                let name = entry.file_name().to_string_lossy().into_owned();
                (name, entry.path().join(&self.group))
            })
            // crun makes one, on the tmpfs that the hierarchies are mounted on.
            .filter(|(name, path)| name != "unified" && path.exists())
            .collect();
        all.sort();
        all
    }

    /// A text of the spec or of a verb, with the place of this round in it.
    pub(super) fn filled(&self, text: &str, holder: Option<u32>) -> String {
        let holder = holder.map(|pid| pid.to_string()).unwrap_or_default();
        text.replace("${dir}", &self.bundle.display().to_string())
            .replace("${top}", &self.top.display().to_string())
            .replace("${group}", &self.group)
            .replace("${holder}", &holder)
    }

    /// The reverse: what a runtime says, without the place.
    pub(super) fn stripped(&self, text: &str) -> String {
        text.replace(&self.top.display().to_string(), "TOP").replace(&self.group, "GROUP")
    }
}
