//! A volume in which somebody exchanges a directory for a symlink while containers are made in it.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use serde_json::json;

use super::{cases, mount};
use crate::{
    Bench,
    bundle::{Made, read_all},
};

/// How many seconds it is tried, where this variable says more than the few of a test.
const SECONDS: &str = "SHIM_RACE_SECONDS";

/// Somebody who exchanges two names as fast as the kernel can.
struct Racer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Racer {
    fn start(one: PathBuf, other: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut count = 0;
            while !told.load(Ordering::Relaxed) {
                let flags = RenameFlags::RENAME_EXCHANGE;
                renameat2(AT_FDCWD, &one, AT_FDCWD, &other, flags).unwrap();
                count += 1;
            }
            count
        });
        Self { stop, thread }
    }

    /// How often it did.
    fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// What a container in the volume is given: each place is one more to be mistaken.
fn places() -> impl Iterator<Item = String> {
    let directories = (0..20).map(|index| format!("directory{index}"));
    directories.chain(["one", "one/two", "file"].map(str::to_owned))
}

/// A container with mounts, devices, masks and a working directory below the place in the volume.
fn racing(volume: &Path) -> Made {
    Made::script("cut -d' ' -f5 /proc/self/mountinfo").with(|spec| {
        mount(
            spec,
            json!({ "destination": "/volume", "type": "bind", "source": volume,
            "options": ["bind"] }),
        );
        for name in places() {
            let mut one = if name == "file" {
                json!({ "type": "bind", "source": "/etc/hostname", "options": ["bind"] })
            } else {
                json!({ "type": "tmpfs", "source": "tmpfs" })
            };
            one["destination"] = format!("/volume/place/{name}").into();
            mount(spec, one);
        }
        spec["linux"]["devices"] = json!([{ "path": "/volume/place/nodes/null", "type": "c",
            "major": 1, "minor": 3 }]);
        spec["process"]["cwd"] = "/volume/place/work".into();
    })
}

/// All that is below a directory.
fn below(directory: &Path) -> BTreeSet<PathBuf> {
    let mut all = BTreeSet::new();
    for entry in fs::read_dir(directory).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            all.extend(below(&entry.path()));
        }
        all.insert(entry.path());
    }
    all
}

/// How many mounts a container has that is given nothing more.
async fn usual_mounts(bench: &Bench) -> usize {
    Made::script("cut -d' ' -f5 /proc/self/mountinfo").output(bench).await.lines().count()
}

async fn race(bench: &Bench, seconds: u64) {
    let usual = usual_mounts(bench).await;
    let outside = tempfile::tempdir().unwrap();
    // What the container's mounts are made on is there, too: they could be put there unseen.
    for name in places().chain(["nodes", "work"].map(str::to_owned)) {
        fs::create_dir_all(outside.path().join(name)).unwrap();
    }
    fs::remove_dir(outside.path().join("file")).unwrap();
    fs::write(outside.path().join("file"), "").unwrap();
    let before = below(outside.path());
    let until = Instant::now() + Duration::from_secs(seconds);
    let (mut made, mut refused, mut exchanges) = (0, 0, 0);
    while Instant::now() < until {
        // A fresh one each time: what has been made once would only be found from then on.
        let volume = tempfile::tempdir().unwrap();
        let (place, link) = (volume.path().join("place"), volume.path().join("link"));
        fs::create_dir(&place).unwrap();
        symlink(outside.path(), &link).unwrap();
        let racing = racing(volume.path());
        let racer = Racer::start(place, link);
        let created = racing.create(bench).await;
        exchanges += racer.end();
        match created {
            Ok(mut running) => {
                shim_core::Container::start(&*running.container).await.unwrap();
                running.wait().await;
                let printed = read_all(running.output.take().unwrap());
                running.end_quietly().await;
                // Every mount is one of the container's: none was put onto the host's tree, which
                // is gone with the change of root.
                assert_eq!(printed.lines().count(), usual + 1 + places().count(), "{printed}");
                made += 1;
            }
            Err(_) => refused += 1,
        }
        assert_eq!(below(outside.path()), before, "something was made outside");
    }
    println!("       {made} made and {refused} refused over {exchanges} exchanges");
    assert!(made > 0 && exchanges > 0);
}

cases! {
    async fn mount_race_puts_nothing_outside(bench: &Bench) {
        let seconds = std::env::var(SECONDS).ok().and_then(|text| text.parse().ok());
        race(bench, seconds.unwrap_or(4)).await;
    }
}
