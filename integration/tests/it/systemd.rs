//! Cgroups that systemd makes, on machines that run it.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use integration::cgroups::{self, Value};
use integration::container::Container;
use integration::lane::{Folder, Lane};
use integration::procs;
use integration::runner::Skip;
use integration::wait::{self, SOON};
use nix::sys::signal::Signal;

integration::tests![
    a_container_is_a_scope_with_its_limits,
    nothing_is_left_of_a_scope_whose_shim_was_killed,
    what_is_no_unit_is_refused_by_name,
    many_scopes_come_and_go_at_once,
];

const MEGABYTE: u64 = 1 << 20;

/// The option, in a file.
struct Asked {
    folder: Folder,
}

impl Asked {
    fn new(lane: &Lane) -> Result<Self> {
        lane.go_cannot("its options are of another kind")?;
        if !Path::new("/run/systemd/system").exists() {
            return Err(Skip("systemd does not run here".to_owned()).into());
        }
        let folder = lane.folder()?;
        fs::write(folder.join("options.toml"), "SystemdCgroup = true\n")?;
        Ok(Self { folder })
    }

    fn path(&self) -> String {
        self.folder.join("options.toml")
    }

    /// A container that sleeps in a scope of that name.
    fn sleeper(&self, lane: &Lane, name: &str, flags: &[&str]) -> Result<Container> {
        let (path, cgroup) = (self.path(), format!("system.slice:it:{name}"));
        let own = ["--runtime-config-path", &path, "--cgroup", &cgroup];
        lane.sleeper(&[&own, flags].concat())
    }
}

/// A property of a scope, as systemd tells it.
fn property(name: &str, property: &str) -> Result<String> {
    let unit = format!("it-{name}.scope");
    let mut show = Command::new("systemctl");
    let output = show.args(["show", "--value", "--property", property, &unit]).output();
    let output = output.context("execute systemctl")?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn is_gone(name: &str) -> Result<()> {
    wait::until(format!("the end of scope {name}"), SOON, || {
        let state = property(name, "LoadState")?;
        ensure!(state == "not-found", "it is {state}");
        Ok(())
    })
}

fn a_container_is_a_scope_with_its_limits(lane: &Lane) -> Result<()> {
    let (asked, name) = (Asked::new(lane)?, lane.name());
    let limit = (32 * MEGABYTE).to_string();
    let container = asked.sleeper(lane, &name, &["--memory-limit", &limit, "--cpus", "0.2"])?;
    let pid = container.pid()?;
    let at = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    ensure!(at.contains(&format!("/system.slice/it-{name}.scope")), "{at}");
    assert_eq!(property(&name, "MemoryMax")?, limit);
    assert_eq!(property(&name, "CPUQuotaPerSecUSec")?, "200ms");
    assert_eq!(property(&name, "Delegate")?, "yes");
    assert_eq!(cgroups::read(pid, Value::MemoryLimit)?, 32 * MEGABYTE);
    assert_eq!(cgroups::read(pid, Value::CpuQuota)?, 20_000);
    assert_eq!(container.exec(&["sh", "-c", "exit 3"])?.status, 3);
    ensure!(container.task(&["metrics"])?.contains("memory"));
    container.task(&["pause"])?;
    container.wait_status("PAUSED")?;
    container.task(&["resume"])?;
    // Who exceeds the limit is killed, and systemd does not end the others for it.
    assert_eq!(container.exec(&["tail", "/dev/zero"])?.status, 137);
    container.wait_status("RUNNING")?;
    assert_eq!(container.remove()?, 137);
    is_gone(&name)
}

fn nothing_is_left_of_a_scope_whose_shim_was_killed(lane: &Lane) -> Result<()> {
    let (asked, name) = (Asked::new(lane)?, lane.name());
    let container = asked.sleeper(lane, &name, &[])?;
    let pid = container.pid()?;
    procs::signal(container.shim()?, Signal::SIGKILL)?;
    wait::until("the end of the container", SOON, || {
        ensure!(!procs::runs(pid), "{pid} runs");
        Ok(())
    })?;
    container.forget()?;
    is_gone(&name)
}

fn what_is_no_unit_is_refused_by_name(lane: &Lane) -> Result<()> {
    let asked = Asked::new(lane)?;
    let path = asked.path();
    let flags = ["--runtime-config-path", path.as_str(), "--cgroup", "/some/where"];
    let output = lane.run(&flags, &["true"])?;
    assert_ne!(output.status, 0);
    for part in ["linux.cgroupsPath", "/some/where", "SLICE:PREFIX:NAME"] {
        ensure!(output.stderr.contains(part), "no {part} in {}", output.stderr);
    }
    Ok(())
}

fn many_scopes_come_and_go_at_once(lane: &Lane) -> Result<()> {
    let asked = Asked::new(lane)?;
    let names: Vec<_> = (0..8).map(|_| lane.name()).collect();
    std::thread::scope(|threads| {
        let one = |name: &String| {
            let asked = &asked;
            let name = name.clone();
            threads.spawn(move || -> Result<()> {
                for _ in 0..3 {
                    assert_eq!(asked.sleeper(lane, &name, &[])?.remove()?, 137);
                }
                is_gone(&name)
            })
        };
        let all: Vec<_> = names.iter().map(one).collect();
        all.into_iter().try_for_each(|one| one.join().expect("a thread panicked"))
    })
}
