//! What a bundle records of its container, for those who come after a shim that died.
//!
//! It is written before the first side effect, so that whatever was made can be found again, once
//! more when the cgroup is the container's own, and when the init process is known.

use std::{
    fs, io,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use shim_core::{
    Context, Error, Kind, Result,
    linux::{open_pid, signal_pidfd, start_time, wait_gone},
    model::{Bundle, Pid, Signal},
};

use crate::engine::cgroup::{Cgroup, CgroupPath};

const FILE: &str = "native.json";
/// containerd gives `delete` five seconds.
const LIMIT: Duration = Duration::from_secs(4);

/// A container's traces on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The path of its cgroup below the root of each hierarchy.
    pub(crate) cgroup: String,
    /// Whether that cgroup was made for it. Before that it may be another's, and is not touched.
    #[serde(default)]
    pub(crate) is_made: bool,
    /// Its init process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) init: Option<Init>,
}

/// A process that can be told from another one of the same pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Init {
    /// Its pid.
    pub(crate) pid: i32,
    /// When it started, in clock ticks since boot.
    pub(crate) started: u64,
}

impl Record {
    /// Writes the record into its bundle.
    ///
    /// # Errors
    /// What could not be written.
    pub(crate) fn write(&self, bundle: &Bundle) -> Result<()> {
        bundle.write(FILE, &serde_json::to_vec(self)?)
    }

    /// Takes the record of a container of which nothing is left out of its bundle.
    pub(crate) fn erase(bundle: &Bundle) {
        // One that stays names a cgroup that is gone, which is fine.
        let _ = fs::remove_file(bundle.path().join(FILE));
    }

    fn read(bundle: &Bundle) -> Result<Option<Self>> {
        let path = bundle.path().join(FILE);
        match fs::read(&path) {
            Ok(text) => {
                let record = serde_json::from_slice(&text);
                record.with_context(|| format!("parse {}", path.display())).map(Some)
            }
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(err) => Err(Error::from(err).context(format!("read {}", path.display()))),
        }
    }
}

impl Init {
    /// Looks a process up that is known to be there.
    ///
    /// # Errors
    /// When it is not.
    pub(crate) fn of(pid: Pid) -> Result<Self> {
        Ok(Self { pid: pid.raw(), started: start_time(pid)? })
    }

    /// Opens the process if it still is the one that was recorded.
    fn open(self) -> Option<OwnedFd> {
        let pid = Pid::new(self.pid).ok()?;
        let pidfd = open_pid(pid).ok()?;
        // The descriptor holds the process: what is compared is what is killed.
        (start_time(pid).ok() == Some(self.started)).then_some(pidfd)
    }
}

/// Removes what a dead shim left of a bundle's container, and waits until its processes are gone.
///
/// # Errors
/// What could not be removed.
pub(crate) fn clean_up(bundle: &Bundle) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    let Some(record) = Record::read(bundle)? else { return Ok(()) };
    let cgroup = Cgroup::at(CgroupPath::parse(&record.cgroup)?)?;
    if !record.is_made {
        // At most some directories of it are there, and empty; with processes it is another's.
        if cgroup.exists() && cgroup.pids()?.is_empty() {
            cgroup.remove().context("remove the cgroup")?;
        }
        Record::erase(bundle);
        return Ok(());
    }
    let init = record.init.and_then(Init::open);
    if let Some(init) = &init {
        match signal_pidfd(init, Signal::KILL) {
            Err(err) if err.kind() == Kind::NotFound => {}
            sent => sent.context("kill the init process")?,
        }
    }
    for pid in kill_all(&cgroup)? {
        // Members of the cgroup are not our children: their end is seen through a pidfd.
        if let Ok(pidfd) = open_pid(pid) {
            wait_gone(&pidfd, deadline)?;
        }
    }
    if let Some(init) = init {
        wait_gone(&init, deadline)?;
    }
    cgroup.remove().context("remove the cgroup")?;
    Record::erase(bundle);
    Ok(())
}

fn kill_all(cgroup: &Cgroup) -> Result<Vec<Pid>> {
    if !cgroup.exists() {
        return Ok(Vec::new());
    }
    let pids = cgroup.pids()?;
    cgroup.kill().context("kill the container's processes")?;
    Ok(pids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let bundle = Bundle::new(dir.path()).unwrap();
        assert_eq!(Record::read(&bundle).unwrap(), None);
        let own = Pid::new(std::process::id().cast_signed()).unwrap();
        let init = Init::of(own).unwrap();
        let record = Record { cgroup: "/a/b".to_owned(), is_made: true, init: Some(init) };
        record.write(&bundle).unwrap();
        assert_eq!(Record::read(&bundle).unwrap(), Some(record));
        assert!(init.open().is_some());
        assert!(Init { started: init.started + 1, ..init }.open().is_none());
        Record::erase(&bundle);
        assert_eq!(Record::read(&bundle).unwrap(), None);
    }

    #[test]
    fn a_bundle_without_a_record_is_clean() {
        let dir = tempfile::tempdir().unwrap();
        clean_up(&Bundle::new(dir.path()).unwrap()).unwrap();
    }
}
