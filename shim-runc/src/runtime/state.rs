//! What is known of a container: kept in its directory, and told as the OCI runtime spec has it.

use std::{
    collections::HashMap,
    fmt, fs,
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::PathBuf,
    time::Instant,
};

use oci_spec::runtime::{LinuxIntelRdt, Spec};
use serde::{Deserialize, Serialize};
use shim_core::{Error, Kind, Result, linux::wait_gone};

use super::{Runtime, folder::Folder};
use crate::{
    engine::{
        cgroup::{Cgroup, CgroupPath, Place, Unit},
        doors,
        talk::Rest,
    },
    record::Init,
};

/// The form of the file.
const VERSION: u32 = 1;

/// A container's state, as `state` and `list` print it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// The version of the spec that the container was made by.
    pub oci_version: String,
    /// The container's id.
    pub id: String,
    /// The init process on the host; 0 when there is none.
    pub pid: i32,
    /// What it does.
    pub status: Status,
    /// The bundle that it was made from.
    pub bundle: PathBuf,
    /// Its root filesystem on the host.
    pub rootfs: PathBuf,
    /// When it was made, RFC 3339.
    pub created: String,
    /// The spec's annotations.
    #[serde(skip_serializing_if = "HashMap::is_empty")]
    pub annotations: HashMap<String, String>,
    /// The name of the user who made it.
    pub owner: String,
}

/// What a container does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It is being made.
    Creating,
    /// It waits for its start.
    Created,
    /// Its program runs.
    Running,
    /// All its processes stand still.
    Paused,
    /// Its init process has ended.
    Stopped,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        })
    }
}

/// What later verbs have to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Saved {
    version: u32,
    pub(super) bundle: PathBuf,
    pub(super) rootfs: PathBuf,
    pub(super) created: String,
    pub(super) cgroup: String,
    /// The unit that the cgroup is, if systemd makes it.
    #[serde(default)]
    pub(super) unit: Option<Unit>,
    pub(super) init: Option<Init>,
    /// Its making is over.
    pub(super) is_made: bool,
    /// Its processes have a session keyring of their own.
    pub(super) has_keyring: bool,
    /// Its program has a way to say that it is ready.
    #[serde(default)]
    pub(super) notifies: bool,
    /// What it was given of cache and memory bandwidth later, if its spec gives it nothing.
    #[serde(default)]
    pub(super) shares: Option<LinuxIntelRdt>,
    /// What is left to do at the start.
    pub(super) rest: Option<Rest>,
}

impl Saved {
    pub(super) fn new(bundle: PathBuf, rootfs: PathBuf, created: String, cgroup: &Place) -> Self {
        Self {
            version: VERSION,
            bundle,
            rootfs,
            created,
            cgroup: cgroup.path.as_str().to_owned(),
            unit: cgroup.unit.clone(),
            init: None,
            is_made: false,
            has_keyring: true,
            notifies: false,
            shares: None,
            rest: None,
        }
    }

    pub(super) fn parse(text: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let Versioned { version } = serde_json::from_slice(text)?;
        if version != VERSION {
            let why = format!("it has version {version}, and this program knows {VERSION}");
            return Err(Error::new(Kind::Unsupported, why));
        }
        Ok(serde_json::from_slice(text)?)
    }

    pub(super) fn cgroup(&self) -> Result<Cgroup> {
        let path = CgroupPath::recorded(&self.cgroup)?;
        Cgroup::at(Place { path, unit: self.unit.clone() })
    }

    /// The container's spec, with what became of it since.
    pub(super) fn spec(&self, folder: &Folder) -> Result<Box<Spec>> {
        let mut spec = folder.spec()?;
        if let (Some(shares), Some(linux)) = (&self.shares, spec.linux_mut()) {
            linux.set_intel_rdt(Some(shares.clone()));
        }
        Ok(spec)
    }

    /// The init process, if it lives.
    pub(super) fn live_init(&self) -> Option<OwnedFd> {
        // One that has ended stays in sight until its parent collects it.
        self.init?.open().filter(|init| wait_gone(init, Instant::now()).is_err())
    }

    pub(super) fn status(&self, folder: &Folder) -> Result<Status> {
        Ok(if self.live_init().is_none() {
            Status::Stopped
        } else if !self.is_made {
            Status::Creating
        } else if self.cgroup()?.frozen()? {
            Status::Paused
        } else if doors::are_closed(folder.path()) {
            Status::Created
        } else {
            Status::Running
        })
    }
}

impl Runtime {
    /// Tells a container's state.
    ///
    /// # Errors
    /// `NotFound` when there is none.
    pub fn state(&self, id: &str) -> Result<State> {
        let folder = self.find(id)?;
        let saved = folder.load()?;
        let status = saved.status(&folder)?;
        let pid = saved.init.filter(|_| status != Status::Stopped).map_or(0, |init| init.pid);
        let spec = folder.spec()?;
        Ok(State {
            oci_version: spec.version().clone(),
            id: id.to_owned(),
            pid,
            status,
            rootfs: saved.rootfs,
            bundle: saved.bundle,
            created: saved.created,
            annotations: spec.annotations().clone().unwrap_or_default(),
            owner: owner(&folder),
        })
    }

    /// Tells the states of all containers; those that come or go meanwhile may be left out.
    ///
    /// # Errors
    /// When the root can't be read.
    pub fn list(&self) -> Result<Vec<State>> {
        let state = |id: String| match self.state(&id) {
            Ok(state) => Some(state),
            Err(err) if err.kind() == Kind::NotFound => None,
            Err(err) => {
                log::warn!("container {id}: {err:#}");
                None
            }
        };
        Ok(self.ids()?.into_iter().filter_map(state).collect())
    }
}

/// The user who has made a container: a name, or a number that has none.
fn owner(folder: &Folder) -> String {
    let Ok(found) = fs::metadata(folder.path()) else { return String::new() };
    let uid = found.uid().to_string();
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| format!("#{uid}"))
}

#[cfg(test)]
mod tests {
    use shim_core::model::Pid;

    use super::*;

    fn saved() -> Saved {
        let cgroup = CgroupPath::parse("/c").unwrap().into();
        Saved::new("/b".into(), "/b/rootfs".into(), "now".to_owned(), &cgroup)
    }

    #[test]
    fn another_version_is_refused() {
        let text = serde_json::to_string(&saved()).unwrap();
        assert_eq!(Saved::parse(text.as_bytes()).unwrap(), saved());
        let later = text.replace("\"version\":1", "\"version\":2");
        assert_eq!(Saved::parse(later.as_bytes()).unwrap_err().kind(), Kind::Unsupported);
    }

    #[test]
    fn a_pid_that_is_anothers_now_is_nobodys() {
        let own = Pid::new(std::process::id().cast_signed()).unwrap();
        let init = Init::of(own).unwrap();
        let with = |init| Saved { init: Some(init), ..saved() };
        assert!(with(init).live_init().is_some());
        assert!(with(Init { started: init.started - 1, ..init }).live_init().is_none());
        assert!(saved().live_init().is_none());
    }

    #[test]
    fn one_that_has_ended_does_not_live_though_nobody_has_collected_it() {
        let mut child = std::process::Command::new("/bin/cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let pid = Pid::new(child.id().cast_signed()).unwrap();
        let one = Saved { init: Some(Init::of(pid).unwrap()), ..saved() };
        let pidfd = one.live_init().unwrap();
        child.stdin = None;
        wait_gone(&pidfd, Instant::now() + std::time::Duration::from_secs(10)).unwrap();
        assert!(one.live_init().is_none());
        child.wait().unwrap();
    }
}
