//! What a bundle records of its container, for those who come after a shim that died.
//!
//! It is a line for each thing that happened, the first before the first side effect, so that
//! whatever was made can be found again. Lines are only added: a file that is replaced has to be
//! freed, for which some filesystems wait for the disk.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use shim_core::{
    Context, Error, Kind, Result,
    linux::{kill_recorded, open_pid, signal_pidfd, start_time, wait_gone},
    model::{Bundle, ContainerId, Pid, Signal},
};

use crate::{
    engine::{
        cgroup::{Cgroup, CgroupPath, Place, Unit},
        resctrl::Left,
    },
    external::{self, Runtime},
};

const FILE: &str = "native.json";
/// containerd gives `delete` five seconds.
const LIMIT: Duration = Duration::from_secs(4);

/// The record of a container that is being made.
#[derive(Debug)]
pub(crate) struct Record {
    file: File,
}

/// A line of the record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    /// The runtime that has made it, if the shim did not.
    Runtime(Runtime),
    /// The path of its cgroup below the root of each hierarchy. It may be another's yet, and then is
    /// not touched.
    Cgroup(String),
    /// The unit that it is, if systemd makes it.
    Unit(Unit),
    /// That cgroup has been made for it.
    Made,
    /// What it has in resctrl.
    Resctrl(Left),
    /// Its init process.
    Init(Init),
}

/// A container's traces on the host, as far as its record goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Traces {
    cgroup: String,
    unit: Option<Unit>,
    is_made: bool,
    resctrl: Left,
    init: Option<Init>,
    runtime: Option<Runtime>,
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
    /// Begins the record of a container that will have this cgroup, and unit if systemd makes it.
    ///
    /// # Errors
    /// What could not be written.
    pub(crate) fn begin(bundle: &Bundle, cgroup: &CgroupPath, unit: Option<&Unit>) -> Result<Self> {
        let path = bundle.path().join(FILE);
        // What is there is an earlier container's, of which nothing is left.
        let opened =
            File::options().write(true).create(true).truncate(true).mode(0o600).open(&path);
        let file = opened.with_context(|| format!("write {}", path.display()))?;
        let record = Self { file };
        record.add(&Line::Cgroup(cgroup.as_str().to_owned()))?;
        if let Some(unit) = unit {
            record.add(&Line::Unit(unit.clone()))?;
        }
        Ok(record)
    }

    /// Goes on with the record that a bundle has.
    ///
    /// # Errors
    /// When there is none, or it can't be written.
    pub(crate) fn go_on(bundle: &Bundle) -> Result<Self> {
        let path = bundle.path().join(FILE);
        let opened = File::options().append(true).open(&path);
        Ok(Self { file: opened.with_context(|| format!("write {}", path.display()))? })
    }

    /// Adds the runtime that makes the container.
    ///
    /// # Errors
    /// What could not be written.
    pub(crate) fn driven_by(&self, runtime: &Runtime) -> Result<()> {
        self.add(&Line::Runtime(runtime.clone()))
    }

    /// Adds what the container will have in resctrl.
    ///
    /// # Errors
    /// What could not be written.
    pub(crate) fn leaves(&self, left: &Left) -> Result<()> {
        self.add(&Line::Resctrl(left.clone()))
    }

    /// Adds that the cgroup is the container's own.
    ///
    /// # Errors
    /// What could not be written.
    pub(crate) fn made(&self) -> Result<()> {
        self.add(&Line::Made)
    }

    /// Adds the init process.
    ///
    /// # Errors
    /// What could not be written.
    pub(crate) fn born(&self, pid: Pid) -> Result<()> {
        // One that has ended already leaves nothing that is not in the cgroup.
        Init::of(pid).map_or(Ok(()), |init| self.add(&Line::Init(init)))
    }

    fn add(&self, line: &Line) -> Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        // In one piece: a line without its end is not read.
        (&self.file).write_all(&text).with_context(|| format!("write {FILE}"))
    }

    /// Whether a bundle has a record.
    pub(crate) fn is_there(bundle: &Bundle) -> bool {
        bundle.path().join(FILE).exists()
    }

    /// Takes the record of a container of which nothing is left out of its bundle.
    pub(crate) fn erase(bundle: &Bundle) {
        // One that stays names a cgroup that is gone, which is fine.
        let _ = fs::remove_file(bundle.path().join(FILE));
    }
}

impl Traces {
    fn read(bundle: &Bundle) -> Result<Option<Self>> {
        let path = bundle.path().join(FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(err) => return Err(Error::from(err).context(format!("read {}", path.display()))),
        };
        let mut traces = Self::default();
        for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
            let line = serde_json::from_slice(line.as_bytes());
            match line.with_context(|| format!("parse {}", path.display()))? {
                Line::Cgroup(cgroup) => traces.cgroup = cgroup,
                Line::Runtime(runtime) => traces.runtime = Some(runtime),
                Line::Unit(unit) => traces.unit = Some(unit),
                Line::Made => traces.is_made = true,
                Line::Resctrl(left) => traces.resctrl = left,
                Line::Init(init) => traces.init = Some(init),
            }
        }
        Ok((!traces.cgroup.is_empty()).then_some(traces))
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
    pub(crate) fn open(self) -> Option<OwnedFd> {
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
pub(crate) fn clean_up(id: &ContainerId, bundle: &Bundle) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    let Some(traces) = Traces::read(bundle)? else { return Ok(()) };
    let Some(runtime) = &traces.runtime else { return remove(&traces, bundle, deadline) };
    let deleted = external::clean_up(runtime, id, bundle);
    // A runtime that is gone itself, or fails, leaves processes that can be ended nevertheless.
    kill_recorded(bundle).and_then(|()| remove(&traces, bundle, deadline)).and(deleted)
}

/// The same for a container that no other runtime has made, on a runtime.
///
/// # Errors
/// What could not be removed.
pub(crate) async fn clean_up_own(bundle: &Bundle) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    let Some(traces) = Traces::read(bundle)? else { return Ok(()) };
    if let Some(cgroup) = end(&traces, deadline)? {
        cgroup.remove_async().await.context("remove the cgroup")?;
    }
    traces.resctrl.remove()?;
    Record::erase(bundle);
    Ok(())
}

fn remove(traces: &Traces, bundle: &Bundle, deadline: Instant) -> Result<()> {
    if let Some(cgroup) = end(traces, deadline)? {
        cgroup.remove().context("remove the cgroup")?;
    }
    traces.resctrl.remove()?;
    Record::erase(bundle);
    Ok(())
}

/// Ends what runs in a container; its cgroup is still to be removed.
fn end(traces: &Traces, deadline: Instant) -> Result<Option<Cgroup>> {
    let path = CgroupPath::recorded(&traces.cgroup)?;
    let cgroup = Cgroup::at(Place { path, unit: traces.unit.clone() })?;
    if !traces.is_made {
        // At most some directories of it are there, and empty; with processes it is another's. A
        // unit is another's too, or has ended with us.
        let is_left = traces.unit.is_none() && cgroup.exists() && cgroup.pids()?.is_empty();
        return Ok(is_left.then_some(cgroup));
    }
    let init = traces.init.and_then(Init::open);
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
    Ok(Some(cgroup))
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
    use crate::engine::cgroup::Driver;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let bundle = Bundle::new(dir.path()).unwrap();
        assert_eq!(Traces::read(&bundle).unwrap(), None);
        let path = "system.slice:p:c".as_ref();
        let place = Place::of(Driver::Systemd, Some(path), "", "c").unwrap();
        let record = Record::begin(&bundle, &place.path, place.unit.as_ref()).unwrap();
        let cgroup = place.path.as_str().to_owned();
        let mut expected = Traces { cgroup, unit: place.unit, ..Traces::default() };
        assert_eq!(Traces::read(&bundle).unwrap().as_ref(), Some(&expected));
        record.made().unwrap();
        expected.is_made = true;
        assert_eq!(Traces::read(&bundle).unwrap().as_ref(), Some(&expected));
        let own = Pid::new(std::process::id().cast_signed()).unwrap();
        let later = Record::go_on(&bundle).unwrap();
        later.leaves(&Left::default()).unwrap();
        later.born(own).unwrap();
        let init = Init::of(own).unwrap();
        expected.init = Some(init);
        assert_eq!(Traces::read(&bundle).unwrap(), Some(expected));
        assert!(init.open().is_some());
        assert!(Init { started: init.started + 1, ..init }.open().is_none());
        Record::erase(&bundle);
        assert_eq!(Traces::read(&bundle).unwrap(), None);
    }

    #[test]
    fn a_line_without_its_end_has_not_happened() {
        let dir = tempfile::tempdir().unwrap();
        let bundle = Bundle::new(dir.path()).unwrap();
        fs::write(dir.path().join(FILE), "{\"cgr").unwrap();
        assert_eq!(Traces::read(&bundle).unwrap(), None);
        fs::write(dir.path().join(FILE), "{\"cgroup\":\"/a\"}\n\"mad").unwrap();
        let expected = Traces { cgroup: "/a".to_owned(), ..Traces::default() };
        assert_eq!(Traces::read(&bundle).unwrap(), Some(expected));
        fs::write(dir.path().join(FILE), "nonsense\n").unwrap();
        assert!(format!("{:#}", Traces::read(&bundle).unwrap_err()).contains(FILE));
    }

    #[test]
    fn a_bundle_without_a_record_is_clean() {
        let dir = tempfile::tempdir().unwrap();
        let id = ContainerId::parse("c1").unwrap();
        clean_up(&id, &Bundle::new(dir.path()).unwrap()).unwrap();
    }
}
