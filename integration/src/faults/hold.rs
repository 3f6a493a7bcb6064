//! Holding back what a shim and its stem need: room, descriptors, memory, processes, quiet, time.
//!
//! While a shim starts there is no process yet to hold back; then a small script takes its place,
//! puts itself under the limit and executes the shim. Cgroups are those of version 1: a process
//! can be moved into one controller's tree there without leaving the others.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use shim_client::ShimBinary;

use super::life::Life;
use super::matrix::Want;
use super::role::processes_of;
use super::stage::Stage;
use crate::runner::Skip;
use crate::wait::{self, SOON};
use crate::{cgroups, procs};

/// The descriptors that a process has without a limit of ours.
const PLENTY: u64 = 1024;

/// A page, the unit in which file systems and memory are counted.
const PAGE: [u8; 4096] = [0; 4096];

/// Its length.
const PAGE_SIZE: u64 = PAGE.len() as u64;

/// Something that is being held back.
#[derive(Debug)]
pub struct Hold {
    who: Vec<i32>,
    id: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Filler(PathBuf),
    Descriptors,
    Cgroup { dir: PathBuf, limit: &'static str },
    Thread { ends: Arc<AtomicBool>, thread: Option<JoinHandle<()>>, cgroup: Option<PathBuf> },
}

impl Hold {
    /// Begins. The deeper, the less is held back, and the further a step gets.
    ///
    /// # Errors
    /// [`Skip`] where the machine has no such cgroups.
    pub fn begin(want: Want, stage: &Stage, life: &mut Life, depth: u32) -> Result<Self> {
        let who: Vec<i32> = [life.shim, life.stem].into_iter().flatten().collect();
        let mut place = Place { stage, life, who: &who };
        let kind = match want {
            Want::Disk => fill(&stage.dir, u64::from(depth))?,
            Want::Descriptors => place.descriptors(depth)?,
            Want::Memory => {
                let limit = (16 * PAGE_SIZE) << depth.min(10);
                place.cgroup("memory", "memory.limit_in_bytes", limit)?
            }
            Want::Pids => {
                let limit = u64::from(depth % 4) + who.len() as u64;
                place.cgroup("pids", "pids.max", limit)?
            }
            Want::Quiet => {
                storm(&place.life.id, &[Signal::SIGCHLD, Signal::SIGWINCH, Signal::SIGURG])
            }
            Want::Time => place.slowly(depth)?,
        };
        Ok(Self { who, id: life.id.clone(), kind })
    }

    /// Gives back what was held.
    ///
    /// # Errors
    /// When a limit cannot be lifted.
    pub fn lift(&mut self) -> Result<()> {
        match &mut self.kind {
            Kind::Filler(path) => fs::remove_file(path)?,
            Kind::Descriptors => {
                let known = processes_of(&self.id).into_iter().map(|(pid, _)| pid);
                let all: Vec<i32> = known.chain(self.who.iter().copied()).collect();
                all.into_iter().for_each(|pid| drop(set_descriptors(pid, PLENTY)));
            }
            Kind::Cgroup { dir, limit: limit @ "pids.max" } => write(&dir.join(limit), "max")?,
            Kind::Cgroup { dir, limit } => write(&dir.join(limit), "-1")?,
            Kind::Thread { ends, thread, cgroup } => {
                ends.store(true, Ordering::Relaxed);
                if let Some(thread) = thread.take() {
                    // It has nothing to tell.
                    let _ = thread.join();
                }
                if let Some(dir) = cgroup {
                    write(&dir.join("cpu.cfs_quota_us"), "-1")?;
                }
            }
        }
        Ok(())
    }

    /// Removes the cgroup, once all processes in it are gone.
    ///
    /// # Errors
    /// When one stays.
    pub fn remove(self) -> Result<()> {
        let dir = match self.kind {
            Kind::Cgroup { dir, .. } => dir,
            Kind::Thread { cgroup: Some(dir), .. } => dir,
            _ => return Ok(()),
        };
        let remove = || cgroups::remove(&dir).with_context(|| format!("remove {}", dir.display()));
        wait::until("an empty cgroup", SOON, remove)
    }
}

/// Where a hold is put.
struct Place<'a> {
    stage: &'a Stage,
    life: &'a mut Life,
    who: &'a [i32],
}

impl Place<'_> {
    fn descriptors(&mut self, depth: u32) -> Result<Kind> {
        if self.who.is_empty() {
            // Of the first dozen the loader needs some.
            self.wrap(&format!("ulimit -n {}", 4 + depth))?;
        }
        for pid in self.who {
            // The limit is one of numbers: the lowest free one is the next to be given.
            let open = fs::read_dir(format!("/proc/{pid}/fd"))?.count() as u64;
            set_descriptors(*pid, open + u64::from(depth))?;
        }
        Ok(Kind::Descriptors)
    }

    fn cgroup(&mut self, controller: &str, limit: &'static str, value: u64) -> Result<Kind> {
        let dir = self.make_cgroup(controller)?;
        write(&dir.join(limit), &value.to_string())?;
        self.enter(&dir)?;
        Ok(Kind::Cgroup { dir, limit })
    }

    /// A millisecond of CPU time in ten or more, and standstills at odd moments.
    fn slowly(&mut self, depth: u32) -> Result<Kind> {
        let dir = self.make_cgroup("cpu")?;
        let period = 10_000 * (1 + u64::from(depth % 4));
        write(&dir.join("cpu.cfs_period_us"), &period.to_string())?;
        write(&dir.join("cpu.cfs_quota_us"), "1000")?;
        self.enter(&dir)?;
        match storm(&self.life.id, &[Signal::SIGSTOP, Signal::SIGCONT]) {
            Kind::Thread { ends, thread, .. } => {
                Ok(Kind::Thread { ends, thread, cgroup: Some(dir) })
            }
            other => Ok(other),
        }
    }

    fn make_cgroup(&self, controller: &str) -> Result<PathBuf> {
        let hierarchies = cgroups::hierarchies()?;
        let has = |options: &str| options.split(',').any(|option| option == controller);
        let found = hierarchies.iter().find(|h| h.kind == "cgroup" && has(&h.options));
        let found = found.ok_or_else(|| Skip(format!("no {controller} cgroups of version 1")))?;
        let dir = found.target.join(&self.stage.mark).join("want");
        fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        Ok(dir)
    }

    fn enter(&mut self, dir: &Path) -> Result<()> {
        if self.who.is_empty() {
            self.wrap(&format!("echo $$ > {}/tasks", dir.display()))?;
        }
        let enter = |pid: &i32| write(&dir.join("tasks"), &pid.to_string());
        self.who.iter().try_for_each(enter)
    }

    /// Has a script executed in the shim's place.
    fn wrap(&mut self, line: &str) -> Result<()> {
        let path = self.life.folder.join("start.sh");
        let shim = self.stage.binary.path().display();
        fs::write(&path, format!("#!/bin/sh\n{line}\nexec {shim} \"$@\"\n"))?;
        fs::set_permissions(&path, Permissions::from_mode(0o755))?;
        let text = path.to_str().context("the script's path is not UTF-8")?;
        self.life.program = ShimBinary::resolve(text)?;
        Ok(())
    }
}

fn set_descriptors(pid: i32, limit: u64) -> Result<()> {
    let limits = Rlimit { current: Some(limit), maximum: Some(limit.max(PLENTY)) };
    prlimit(Pid::from_raw(pid), Resource::Nofile, limits)
        .with_context(|| format!("limit the descriptors of {pid}"))?;
    Ok(())
}

/// Leaves so many pages in a file system.
fn fill(dir: &Path, pages: u64) -> Result<Kind> {
    let path = dir.join("filler");
    let mut file = fs::File::create(&path)?;
    let full = loop {
        if let Err(error) = file.write_all(&PAGE) {
            break error;
        }
    };
    if full.kind() != io::ErrorKind::StorageFull {
        return Err(full).context("fill the file system");
    }
    let length = file.metadata()?.len();
    file.set_len(length.saturating_sub(pages * PAGE_SIZE))?;
    Ok(Kind::Filler(path))
}

/// Sends these signals in turn to all processes of a shim, again and again.
fn storm(id: &str, signals: &'static [Signal]) -> Kind {
    let ends = Arc::new(AtomicBool::new(false));
    let (ended, id) = (Arc::clone(&ends), id.to_owned());
    let thread = thread::spawn(move || {
        let mut round = 0u64;
        while !ended.load(Ordering::Relaxed) {
            for (pid, _) in processes_of(&id) {
                for signal in signals {
                    // One that has just ended is no target.
                    let _ = procs::signal(pid, *signal);
                    // Not in step with anything the shim does.
                    thread::park_timeout(Duration::from_micros(50 + round * 37 % 450));
                    round += 1;
                }
            }
        }
        // Nobody is to be left standing.
        if signals.contains(&Signal::SIGCONT) {
            processes_of(&id)
                .iter()
                .for_each(|(pid, _)| drop(procs::signal(*pid, Signal::SIGCONT)));
        }
    });
    Kind::Thread { ends, thread: Some(thread), cgroup: None }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("write {text} to {}", path.display()))
}
