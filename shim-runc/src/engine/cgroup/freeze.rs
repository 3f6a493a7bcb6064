//! Freezing and thawing: the freezer controller on v1, two files of every cgroup on v2.

use std::{path::PathBuf, time::Duration};

use nix::errno::Errno;
use shim_core::{Error, Kind, Result};
use tokio::time::{Instant, sleep};

use super::{Cgroup, dir::Dir};

/// How long processes get to stand still. One in an uninterruptible sleep may never do.
const LIMIT: Duration = Duration::from_secs(10);

/// A pause between two looks.
const PAUSE: Duration = Duration::from_millis(1);

/// On v1, how many looks are made without a pause, and after how many everything is thawed once.
const EAGER: usize = 20;
const REFREEZE: usize = 50;

const V1_FILE: &str = "freezer.state";

enum Freezer {
    V1(Dir),
    V2(Dir),
}

/// Freezes, or thaws again.
pub(super) async fn freeze(cgroup: &Cgroup) -> Result<()> {
    let freezer = open(cgroup)?;
    let done = match &freezer {
        Freezer::V1(dir) => freeze_v1(dir).await,
        Freezer::V2(dir) => freeze_v2(dir).await,
    };
    done.map_err(|err| {
        // Half frozen is the worst state of all.
        let _ = write(&freezer, Wanted::Thawed);
        err.context(format!("freeze {}", cgroup.path))
    })
}

/// Thaws.
pub(super) fn thaw(cgroup: &Cgroup) -> Result<()> {
    write(&open(cgroup)?, Wanted::Thawed)
        .map_err(|err| Error::from(err).context(format!("thaw {}", cgroup.path)))
}

/// Whether everything stands still by the cgroup's own state, not by that of one above.
pub(super) fn frozen(cgroup: &Cgroup) -> Result<bool> {
    let Some((_, freezer)) = find(cgroup) else { return Ok(false) };
    let state = freezer.and_then(|freezer| match freezer {
        Freezer::V1(dir) => {
            let itself = dir.read("freezer.self_freezing").map(|text| text.trim() == "1");
            Ok(dir.read(V1_FILE)?.trim() == "FROZEN" && itself.unwrap_or(true))
        }
        Freezer::V2(dir) => Ok(dir.read("cgroup.freeze")?.trim() == "1" && stands_still(&dir)?),
    });
    match state {
        // A cgroup that is gone, or a kernel that can't: nothing is frozen.
        Err(Errno::ENOENT | Errno::ENODEV) => Ok(false),
        other => other.map_err(|err| {
            Error::from(err).context(format!("read the freezer of {}", cgroup.path))
        }),
    }
}

/// Starts to freeze on v1 and does not wait: for those who kill, so that less is forked.
pub(super) fn hold(cgroup: &Cgroup) {
    if let Some((_, Ok(freezer @ Freezer::V1(_)))) = find(cgroup) {
        let _ = write(&freezer, Wanted::Frozen);
    }
}

/// Thaws if it can.
pub(super) fn release(cgroup: &Cgroup) {
    if let Some((_, Ok(freezer))) = find(cgroup) {
        let _ = write(&freezer, Wanted::Thawed);
    }
}

#[derive(Clone, Copy)]
enum Wanted {
    Frozen,
    Thawed,
}

fn write(freezer: &Freezer, wanted: Wanted) -> nix::Result<()> {
    match (freezer, wanted) {
        (Freezer::V1(dir), Wanted::Frozen) => dir.write(V1_FILE, "FROZEN"),
        (Freezer::V1(dir), Wanted::Thawed) => dir.write(V1_FILE, "THAWED"),
        (Freezer::V2(dir), Wanted::Frozen) => dir.write("cgroup.freeze", "1"),
        (Freezer::V2(dir), Wanted::Thawed) => dir.write("cgroup.freeze", "0"),
    }
}

/// The kernel may stay at FREEZING for ever while processes come in, by fork or by joining: asking
/// again is what moves it on, and thawing for a moment what unlocks it.
async fn freeze_v1(dir: &Dir) -> Result<()> {
    let end = Instant::now() + LIMIT;
    for look in 1.. {
        dir.write(V1_FILE, "FROZEN")?;
        match dir.read(V1_FILE)?.trim() {
            "FROZEN" => return Ok(()),
            _ if Instant::now() >= end => break,
            _ if look % REFREEZE == 0 => {
                dir.write(V1_FILE, "THAWED")?;
                sleep(10 * PAUSE).await;
            }
            _ if look > EAGER => sleep(PAUSE).await,
            _ => {}
        }
    }
    Err(too_late())
}

async fn freeze_v2(dir: &Dir) -> Result<()> {
    dir.write("cgroup.freeze", "1")?;
    let end = Instant::now() + LIMIT;
    while !stands_still(dir)? {
        if Instant::now() >= end {
            return Err(too_late());
        }
        sleep(PAUSE).await;
    }
    Ok(())
}

fn stands_still(dir: &Dir) -> nix::Result<bool> {
    Ok(dir.read("cgroup.events")?.lines().any(|line| line == "frozen 1"))
}

fn too_late() -> Error {
    let text = format!("some processes did not stand still within {} s", LIMIT.as_secs());
    Error::new(Kind::TimedOut, text)
}

fn open(cgroup: &Cgroup) -> Result<Freezer> {
    match find(cgroup) {
        Some((path, freezer)) => freezer.map_err(|err| {
            Error::from(err).context(format!("open the freezer {}", path.display()))
        }),
        None => Err(Error::new(Kind::Unsupported, "this host has no freezer for cgroups")),
    }
}

fn find(cgroup: &Cgroup) -> Option<(PathBuf, nix::Result<Freezer>)> {
    let hierarchies = &cgroup.hierarchies;
    if let Some(hierarchy) = hierarchies.v1_of("freezer") {
        let path = hierarchy.root.join(cgroup.path.relative());
        let dir = Dir::open(&path);
        return Some((path, dir.map(Freezer::V1)));
    }
    let unified = hierarchies.unified.as_ref()?;
    let path = unified.root.join(cgroup.path.relative());
    let dir = Dir::open(&path);
    Some((path, dir.map(Freezer::V2)))
}
