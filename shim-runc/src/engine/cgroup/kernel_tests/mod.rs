//! Cgroups of this host's kernel.
//!
//! They need root and a writable hierarchy; without these the tests say so and pass. Every test
//! has a cgroup of its own and removes it, failed or not.

mod limits;
mod live;
mod unified;

use std::{
    collections::HashSet,
    fs,
    io::Write,
    os::fd::{AsFd, AsRawFd},
    process::{Child, Command, Stdio, id},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxResources};
use shim_core::{Kind, model::Stats};

use super::{devices::spec, dir::Fresh, limits::Files, *};

/// A cgroup that is gone when the test is over.
struct Scratch {
    cgroup: Cgroup,
    children: Vec<Child>,
}

impl Scratch {
    /// On this host's hierarchies, or on its v2 one alone as if it were a v2 host.
    fn new(mode: Option<Mode>) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let skip = |why: &str| {
            eprintln!("skipped: {why}");
            None
        };
        if !nix::unistd::Uid::effective().is_root() {
            return skip("not root");
        }
        let Ok(hierarchies) = Hierarchies::of_host() else { return skip("no cgroups here") };
        let hierarchies = match mode {
            None => hierarchies,
            Some(Mode::V2) => {
                let Some(mut unified) = hierarchies.unified.clone() else {
                    return skip("no v2 here");
                };
                // Handing controllers down would change the host beyond the test.
                unified.controllers.clear();
                Arc::new(Hierarchies { mode: Mode::V2, v1: Vec::new(), unified: Some(unified) })
            }
            Some(_) if hierarchies.mode == Mode::V2 => return skip("no v1 here"),
            Some(_) => hierarchies,
        };
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = CgroupPath::parse(&format!("/shim-test-{}-{count}", id())).unwrap();
        let cgroup = Cgroup::under(hierarchies, path);
        for directory in cgroup.directories() {
            if nix::unistd::access(&directory.mount, nix::unistd::AccessFlags::W_OK).is_err() {
                return skip("the hierarchies are read-only");
            }
        }
        Some(Self { cgroup, children: Vec::new() })
    }

    fn create(&self, resources: &str) -> Result<()> {
        self.cgroup.create(Some(&serde_json::from_str(resources).unwrap()))
    }

    fn set_devices(&self, list: &[LinuxDeviceCgroup]) -> Result<()> {
        devices::set(&Files::of(&self.cgroup, "devices", "devices"), list, Fresh::Found)
    }

    /// What a file of a controller holds.
    fn file(&self, controller: &str, file: &str) -> String {
        let path = directory_of(&self.cgroup, controller).unwrap().join(file);
        fs::read_to_string(path).unwrap().trim().to_owned()
    }

    /// Starts a shell that joins as a container does, then runs a script.
    fn run(&mut self, script: &str) -> Pid {
        let (tasks, unified) = (self.cgroup.tasks().unwrap(), self.cgroup.unified().unwrap());
        let mut join = String::new();
        for tasks in &tasks {
            join += &format!("echo 0 > /proc/{}/fd/{}\n", id(), tasks.as_raw_fd());
        }
        if let Some(unified) = &unified {
            let fd = unified.as_raw_fd();
            join += &format!("echo 0 > /proc/{}/fd/{fd}/cgroup.procs\n", id());
        }
        let mut child = Command::new("sh")
            .arg("-e")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let script = format!("{join}exec >/dev/null; {script}\n");
        child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        let pid = Pid::new(i32::try_from(child.id()).unwrap()).unwrap();
        self.children.push(child);
        for directory in self.cgroup.directories() {
            let joined = || processes::below(&directory.path).unwrap().contains(&pid);
            until("it has joined", joined);
        }
        pid
    }

    fn reap(&mut self) {
        for mut child in self.children.drain(..) {
            child.wait().unwrap();
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = self.cgroup.kill();
        self.reap();
        let removed = self.cgroup.remove();
        if !std::thread::panicking() {
            removed.unwrap();
            assert!(!self.cgroup.exists(), "nothing is left");
        }
    }
}

/// The directory of a v1 controller.
fn directory_of(cgroup: &Cgroup, controller: &str) -> Option<PathBuf> {
    Some(cgroup.hierarchies.v1_of(controller)?.root.join(cgroup.path.relative()))
}

/// Waits for a condition, with a limit.
fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < end, "waited for: {what}");
        std::thread::yield_now();
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}
