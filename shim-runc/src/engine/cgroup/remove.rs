//! Removing a cgroup from every hierarchy, with the cgroups that the container made below it.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    errno::Errno,
    fcntl::AT_FDCWD,
    poll::{PollTimeout, poll},
    unistd::{UnlinkatFlags, unlinkat},
};
use shim_core::{Error, Result};

use super::Cgroup;

/// How long a removal is tried: a process that was killed stays in its cgroup until it is dead.
const LIMIT: Duration = Duration::from_secs(2);

/// The longest pause between two tries; they start at a millisecond and double.
const LONGEST: Duration = Duration::from_millis(64);

/// Removes, and blocks while it waits.
pub(super) fn remove(cgroup: &Cgroup) -> Result<()> {
    let mut removal = Removal::of(cgroup);
    while let Some(pause) = removal.step()? {
        // v1 has no event to wait for; a poll of nothing is a pause that no signal prolongs.
        let _ = poll(&mut [], PollTimeout::try_from(pause).unwrap_or(PollTimeout::ZERO));
    }
    Ok(())
}

/// Removes, and waits on the runtime's clock.
pub(super) async fn remove_async(cgroup: &Cgroup) -> Result<()> {
    let mut removal = Removal::of(cgroup);
    while let Some(pause) = removal.step()? {
        tokio::time::sleep(pause).await;
    }
    Ok(())
}

/// A removal under way.
struct Removal {
    left: Vec<PathBuf>,
    pause: Duration,
    waited: Duration,
}

impl Removal {
    fn of(cgroup: &Cgroup) -> Self {
        let left = cgroup.directories().into_iter().map(|directory| directory.path).collect();
        Self { left, pause: Duration::from_millis(1), waited: Duration::ZERO }
    }

    /// Removes what can be removed; tells how long to wait before the next step, if there is one.
    fn step(&mut self) -> Result<Option<Duration>> {
        let mut failed = None;
        let mut busy = None;
        self.left.retain(|path| match remove_tree(path) {
            Ok(()) => false,
            Err(Errno::EBUSY) => {
                busy = Some((path.clone(), Errno::EBUSY));
                true
            }
            Err(err) => {
                failed = Some((path.clone(), err));
                true
            }
        });
        // The others are gone by now, as far as they can be.
        let over = if self.waited >= LIMIT { busy.take() } else { None };
        if let Some((path, err)) = failed.or(over) {
            return Err(Error::from(err).context(format!("remove cgroup {}", path.display())));
        }
        let pause = busy.map(|_| self.pause);
        self.waited += self.pause;
        self.pause = LONGEST.min(2 * self.pause);
        Ok(pause)
    }
}

/// Removes a directory and those in it, the lowest first.
fn remove_tree(path: &Path) -> nix::Result<()> {
    match rmdir(path) {
        // The kernel says the same of children and of processes.
        Err(Errno::EBUSY | Errno::ENOTEMPTY) => {}
        done => return done,
    }
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    rmdir(path)
}

fn rmdir(path: &Path) -> nix::Result<()> {
    loop {
        match unlinkat(AT_FDCWD, path, UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => return Ok(()),
            // A read-only mount says this before it looks whether there is anything.
            Err(Errno::EROFS) if !path.exists() => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(err) => return Err(err),
        }
    }
}
