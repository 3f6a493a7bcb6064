//! Limits: one file a part of the spec's resources.
//!
//! As runc does, 0 and empty texts mean "leave it alone". A limit whose controller is not there is
//! refused, never passed over: who asked for it relies on it.

mod cpu;
mod cpuset;
mod hugetlb;
mod io;
mod memory;
mod net;
mod pids;
mod rdma;
mod unified;

use std::{cell::OnceCell, fmt::Display, path::PathBuf};

use nix::errno::Errno;
use oci_spec::runtime::LinuxResources;
use shim_core::{Error, Result};

pub(super) use self::{
    cpu::weight as cpu_weight,
    cpuset::{ask_for as ask_for_cpuset, fill as fill_cpuset},
    io::weight_v2 as io_weight,
    memory::swap_alone,
};
use super::{Cgroup, Mode, dir::Dir};

/// Sets every limit that is asked for, but for devices.
pub(super) fn set(cgroup: &Cgroup, resources: &LinuxResources) -> Result<()> {
    let files = |v1, v2| Files::of(cgroup, v1, v2);
    if let Some(limit) = resources.pids() {
        pids::set(&files("pids", "pids"), limit)?;
    }
    if let Some(memory) = resources.memory() {
        memory::set(&files("memory", "memory"), memory)?;
    }
    if let Some(block_io) = resources.block_io() {
        io::set(&files("blkio", "io"), block_io)?;
    }
    if let Some(cpu) = resources.cpu() {
        cpu::set(&files("cpu", "cpu"), cpu)?;
        cpuset::set(&files("cpuset", "cpuset"), cpu)?;
    }
    if let Some(limits) = resources.hugepage_limits() {
        hugetlb::set(&files("hugetlb", "hugetlb"), limits)?;
    }
    if let Some(network) = resources.network() {
        net::set(&files("net_cls", "net_cls"), &files("net_prio", "net_prio"), network)?;
    }
    if let Some(limits) = resources.rdma() {
        rdma::set(&files("rdma", "rdma"), limits)?;
    }
    match resources.unified() {
        Some(values) if !values.is_empty() => unified::set(cgroup, values),
        _ => Ok(()),
    }
}

/// Resources with what they leave open and the files tell: a property of systemd's holds both of two
/// values that are files of their own here, or the two halves of one.
///
/// # Errors
/// When a file can't be read.
pub(super) fn completed(cgroup: &Cgroup, resources: &LinuxResources) -> Result<LinuxResources> {
    let mut whole = resources.clone();
    if cgroup.mode() == Mode::V2 {
        if let Some(cpu) = whole.cpu_mut() {
            cpu::complete(&Files::of(cgroup, "cpu", "cpu"), cpu)?;
        }
        if let Some(memory) = whole.memory_mut() {
            memory::complete(&Files::of(cgroup, "memory", "memory"), memory)?;
        }
    }
    Ok(whole)
}

/// Refuses what would kill at once, where that is asked for; [`set`] does, too.
///
/// # Errors
/// `FailedPrecondition`.
pub(super) fn check(cgroup: &Cgroup, resources: &LinuxResources) -> Result<()> {
    let memory = resources.memory().as_ref();
    memory.map_or(Ok(()), |memory| memory::check(&Files::of(cgroup, "memory", "memory"), memory))
}

/// The v2 controllers that limits need, where v1 has none for them.
pub(super) fn unified_controllers(
    cgroup: &Cgroup,
    resources: &LinuxResources,
) -> Vec<&'static str> {
    let asked = [
        (resources.pids().is_some(), "pids", "pids"),
        (resources.memory().is_some(), "memory", "memory"),
        (resources.block_io().is_some(), "blkio", "io"),
        (resources.cpu().is_some(), "cpu", "cpu"),
        (resources.cpu().is_some(), "cpuset", "cpuset"),
        (resources.hugepage_limits().is_some(), "hugetlb", "hugetlb"),
        (resources.rdma().is_some(), "rdma", "rdma"),
    ];
    let needed = |(asked, v1, v2)| {
        let found = asked
            && cgroup.hierarchies.v1_of(v1).is_none()
            && cgroup.hierarchies.unified_of(v2).is_some();
        found.then_some(v2)
    };
    asked.into_iter().filter_map(needed).collect()
}

/// Which of the kernel's interfaces a controller's files follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V1,
    V2,
}

/// The files of one controller in a container's cgroup.
#[derive(Debug)]
pub(super) struct Files<'a> {
    cgroup: &'a Cgroup,
    controller: &'static str,
    version: Version,
    path: Option<PathBuf>,
    dir: OnceCell<Dir>,
}

impl<'a> Files<'a> {
    /// Finds the controller, which goes by two names. Nothing is opened yet.
    pub(super) fn of(cgroup: &'a Cgroup, v1: &'static str, v2: &'static str) -> Self {
        let hierarchies = &cgroup.hierarchies;
        let below = |root: &PathBuf| root.join(cgroup.path.relative());
        let (version, path) = match (hierarchies.v1_of(v1), &hierarchies.unified) {
            (Some(hierarchy), _) => (Version::V1, Some(below(&hierarchy.root))),
            // Devices have no controller there, but a program anywhere.
            (None, Some(unified)) if hierarchies.mode == Mode::V2 || v2 == "devices" => {
                (Version::V2, Some(below(&unified.root)))
            }
            (None, _) => match hierarchies.unified_of(v2) {
                Some(unified) => (Version::V2, Some(below(&unified.root))),
                None => (Version::V1, None),
            },
        };
        let controller = match version {
            Version::V1 => v1,
            Version::V2 => v2,
        };
        Self { cgroup, controller, version, path, dir: OnceCell::new() }
    }

    pub(super) fn version(&self) -> Version {
        self.version
    }

    /// The container's path, for messages.
    pub(super) fn path(&self) -> &str {
        self.cgroup.path.as_str()
    }

    /// Sets one limit.
    pub(super) fn set(&self, file: &str, value: impl Display) -> Result<()> {
        self.set_unless(&[], file, value).map(drop)
    }

    /// Sets one limit, and tells whether the kernel took it or had one of some expected objections.
    pub(super) fn set_unless(
        &self,
        expected: &[Errno],
        file: &str,
        value: impl Display,
    ) -> Result<bool> {
        let value = value.to_string();
        let dir = self.dir().map_err(|err| self.asked(file, &value, err))?;
        match dir.write(file, &value) {
            Ok(()) => Ok(true),
            Err(err) if expected.contains(&err) => Ok(false),
            Err(err) => Err(self.refused(file, &value, err)),
        }
    }

    /// Reads a file if it is there.
    pub(super) fn read(&self, file: &str) -> Result<Option<String>> {
        match self.dir()?.read(file) {
            Ok(text) => Ok(Some(text)),
            Err(Errno::ENOENT) => Ok(None),
            Err(err) => Err(Error::from(err).context(format!("read {file} of {}", self.path()))),
        }
    }

    /// Reads a file that holds one number. `max`, garbage and absence read as none.
    pub(super) fn number(&self, file: &str) -> Result<Option<u64>> {
        Ok(self.read(file)?.and_then(|text| text.trim().parse().ok()))
    }

    /// The directory's path.
    pub(super) fn directory(&self) -> Result<&PathBuf> {
        self.path.as_ref().ok_or_else(|| {
            Error::other(format!("this host has no cgroup controller {}", self.controller))
        })
    }

    /// The directory, opened once.
    pub(super) fn dir(&self) -> Result<&Dir> {
        if let Some(dir) = self.dir.get() {
            return Ok(dir);
        }
        let path = self.directory()?;
        let dir = Dir::open(path)
            .map_err(|err| Error::from(err).context(format!("open {}", path.display())))?;
        Ok(self.dir.get_or_init(|| dir))
    }

    /// The error for a limit that the kernel did not take.
    pub(super) fn refused(&self, file: &str, value: &str, err: Errno) -> Error {
        let missing = err == Errno::ENOENT && self.version == Version::V2 && !self.is_enabled();
        let why = if missing {
            Error::other(format!("cgroup controller {} is not enabled there", self.controller))
        } else {
            Error::from(err)
        };
        self.asked(file, value, why)
    }

    fn asked(&self, file: &str, value: &str, why: Error) -> Error {
        why.context(format!("set {file} of {} to {value}", self.path()))
    }

    fn is_enabled(&self) -> bool {
        let list = self.read("cgroup.controllers").ok().flatten().unwrap_or_default();
        list.split_whitespace().any(|name| name == self.controller)
    }
}
