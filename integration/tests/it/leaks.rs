//! The leak check itself: it finds what it is there for, and removes it.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use integration::lane::Lane;
use integration::leaks::{self, Leak, Snapshot};
use integration::{cgroups, isolation, mounts};
use nix::mount::{MsFlags, mount};

integration::tests![leaks_of_every_kind_are_found_and_removed];

fn leaks_of_every_kind_are_found_and_removed(lane: &Lane) -> Result<()> {
    let before = Snapshot::take(lane.mark())?;
    let name = lane.name();
    let folder = Path::new(isolation::DIR).join(&name);

    // A process that nobody here is the parent of, as a shim's daemon is.
    Command::new("setsid").args(["--fork", "sleep", "1000"]).status()?;
    fs::create_dir(&folder)?;
    fs::write(folder.join("file"), "")?;
    let none = None::<&str>;
    fs::create_dir(folder.join("mount"))?;
    mount(none, &folder.join("mount"), Some("tmpfs"), MsFlags::empty(), none)?;
    let groups: Vec<_> = cgroups::hierarchies()?
        .into_iter()
        .map(|hierarchy| hierarchy.target.join(lane.mark()).join(&name))
        .collect();
    groups.iter().try_for_each(fs::create_dir_all)?;

    let found = before.news()?;
    let has = |leak: &dyn Fn(&Leak) -> bool| found.iter().filter(|l| leak(l)).count();
    assert_eq!(has(&|leak| matches!(leak, Leak::Process(_))), 1, "{found:?}");
    assert_eq!(has(&|leak| matches!(leak, Leak::Mount(_))), 1, "{found:?}");
    assert_eq!(has(&|leak| matches!(leak, Leak::Cgroup(_))), groups.len(), "{found:?}");
    // The folder, the one in it, and the file.
    assert_eq!(has(&|leak| matches!(leak, Leak::File(..))), 3, "{found:?}");

    assert_eq!(leaks::clean(&before)?, []);
    assert!(!folder.exists() && groups.iter().all(|group| !group.exists()));
    assert!(mounts::all()?.iter().all(|mount| !mount.target.starts_with(&folder)));
    Ok(())
}
