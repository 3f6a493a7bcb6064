//! A machine for a test, and what is left of it.

use std::collections::BTreeSet;
use std::fs;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use integration::sandbox::Bed;
use nix::unistd::geteuid;
use shim_core::linux::Reaper;
use shim_sandbox::channel::Word;
use shim_sandbox::vm::qemu::Qemu;
use shim_sandbox::vm::{Booted, Files, Hypervisor, VmConfig};

/// How long a guest may take to greet. On a quiet machine it is three seconds.
pub(crate) const BOOT: Duration = Duration::from_secs(120);

/// How long anything else may take.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// Runs a test as root, with a leak check; says so when it can't.
pub(crate) fn run(test: impl AsyncFnOnce(&Bed)) {
    if !geteuid().is_root() {
        println!("skipped: it needs root");
        return;
    }
    // Two cores run one machine well; and mounts are everybody's.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let bed = Bed::open().unwrap();
    let before = left();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        test(bed).await;
        // Those that were dropped are collected by tasks of this runtime.
        let until = Instant::now() + SOON;
        loop {
            let left: Vec<_> = left().difference(&before).cloned().collect();
            if left.is_empty() {
                break;
            }
            assert!(Instant::now() < until, "left behind: {left:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}

/// Machines' processes that are ours, zombies too, and mounts.
fn left() -> BTreeSet<String> {
    let children = |thread: fs::DirEntry| fs::read_to_string(thread.path().join("children")).ok();
    let threads = fs::read_dir("/proc/thread-self/..").unwrap().flatten();
    // Others' tests run in other threads.
    let own = fs::read_link("/proc/thread-self").unwrap();
    let own = own.file_name().unwrap().to_owned();
    let of_us = threads.filter(|thread| thread.file_name() == own).filter_map(children);
    let pids = of_us.flat_map(|text| {
        text.split_whitespace().map(|pid| format!("process {pid}")).collect::<Vec<_>>()
    });
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    pids.chain(mounts.lines().map(|line| format!("mount {line}"))).collect()
}

/// A word for a boot.
pub(crate) fn word() -> Word {
    Word::parse("testword1").unwrap()
}

/// Starts a machine.
pub(crate) async fn boot(bed: &Bed, config: &VmConfig) -> Booted {
    let qemu = Qemu { launch: bed.qemu.clone() };
    qemu.boot(&Reaper::default(), config, Files::default()).await.unwrap()
}
