//! Where shimctl keeps what it knows of containers between two of its commands.
//!
//! ```text
//! <root>/bundles/<namespace>/<id>/            the bundle, which the shim may write to
//!        containers/<namespace>/<id>/         ours alone
//!            record.json                      what later commands need
//!            rootfs/{upper,work}  fifos/  work/  shim.log  events.sock
//!        events.sock                          of `shimctl events`
//!        s/                                   sockets of shims, from containerd 2.3 on
//! ```

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};

use crate::answer::Answer;
use crate::bundle::{make_folder, remove_tree};
use crate::daemon::{Daemon, Limits};
use crate::generation::Generation;
use crate::id::check_id;
use crate::shim_log::LogTo;

/// One tree of containers.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
    namespace: String,
}

/// What later commands need to find a container again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The container's id.
    pub id: String,
    /// The shim's executable.
    pub shim: PathBuf,
    /// The generation of containerd that the shim was started by; as text, such as `2.3`.
    pub generation: String,
    /// How the shim is reached; unknown until the container runs.
    pub answer: Option<Answer>,
    /// Where events go.
    pub events: PathBuf,
    /// The container's first process; zero until it runs.
    pub pid: u32,
    /// What it executes.
    pub command: Vec<String>,
    /// What its root filesystem was made from, as it was typed.
    pub rootfs: String,
    /// Seconds since 1970.
    pub created_at: u64,
}

impl Store {
    /// The tree below `root` for one containerd namespace.
    pub fn open(root: &Path, namespace: &str) -> Result<Self> {
        check_id("namespace", namespace)?;
        // Shims change their directory, so no path that they get may be relative.
        let root = std::path::absolute(root).context("make the state root absolute")?;
        make_folder(&root, 0o700)?;
        Ok(Self { root, namespace: namespace.to_owned() })
    }

    /// The parent of all bundles.
    pub fn bundles(&self) -> PathBuf {
        self.root.join("bundles").join(&self.namespace)
    }

    /// The bundle of a container.
    pub fn bundle(&self, id: &str) -> PathBuf {
        self.bundles().join(id)
    }

    fn containers(&self) -> PathBuf {
        self.root.join("containers").join(&self.namespace)
    }

    /// A container's own folder, for all that is not the shim's business.
    pub fn folder(&self, id: &str) -> PathBuf {
        self.containers().join(id)
    }

    /// The socket that `shimctl events` serves.
    pub fn events_socket(&self) -> PathBuf {
        self.root.join("events.sock")
    }

    /// The containerd to pose as, with its events service at that socket.
    pub fn daemon(&self, generation: Generation, events: PathBuf) -> Result<Daemon> {
        // containerd's own limit: with a hash behind it, a longer path is too long for a socket.
        const LONGEST: usize = 42;
        let own = self.root.join("s");
        let fits = own.as_os_str().len() <= LONGEST;
        let socket_dir = if fits { own } else { PathBuf::from("/run/containerd/s") };
        Ok(Daemon {
            generation,
            namespace: self.namespace.clone(),
            grpc_address: self.root.join("shimctl.sock"),
            ttrpc_address: events,
            publish_binary: std::env::current_exe().context("find our own executable")?,
            socket_dir: Some(socket_dir),
            debug: false,
            log: LogTo::Nowhere,
            limits: Limits::default(),
        })
    }

    /// Makes a container's folder, which no other container may have.
    pub fn claim(&self, id: &str) -> Result<PathBuf> {
        check_id("container", id)?;
        make_folder(&self.containers(), 0o700)?;
        let folder = self.folder(id);
        match DirBuilder::new().mode(0o700).create(&folder) {
            Ok(()) => Ok(folder),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(anyhow!(
                "container {id} exists already: choose another --name, or remove it with \
                 `shimctl rm -f {id}`"
            )),
            Err(error) => Err(error).with_context(|| format!("create {}", folder.display())),
        }
    }

    /// Whether a container of that id has a folder, be it a whole one or not.
    pub fn is_claimed(&self, id: &str) -> bool {
        check_id("container", id).is_ok() && self.folder(id).exists()
    }

    /// Writes a container's record, as a whole or not at all.
    pub fn save(&self, record: &Record) -> Result<()> {
        let folder = self.folder(&record.id);
        make_folder(&folder, 0o700)?;
        let text = serde_json::to_vec_pretty(record).context("encode the record")?;
        let (path, new) = (folder.join("record.json"), folder.join(".record.json"));
        fs::write(&new, text)
            .and_then(|()| fs::rename(&new, &path))
            .with_context(|| format!("write {}", path.display()))
    }

    /// Reads a container's record.
    pub fn load(&self, id: &str) -> Result<Record> {
        check_id("container", id)?;
        let path = self.folder(id).join("record.json");
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(anyhow!("no container {id}; `shimctl ps` lists those there are"));
            }
            read => read.with_context(|| format!("read {}", path.display()))?,
        };
        serde_json::from_slice(&text).with_context(|| format!("parse {}", path.display()))
    }

    /// The ids of all containers that have a record, in the order of their names.
    pub fn list(&self) -> Result<Vec<String>> {
        let folder = self.containers();
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.with_context(|| format!("list {}", folder.display()))?,
        };
        let mut ids = Vec::new();
        for entry in entries {
            let entry = entry.with_context(|| format!("list {}", folder.display()))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.path().join("record.json").exists() {
                ids.push(name);
            }
        }
        ids.sort();
        Ok(ids)
    }

    /// Removes a container's folder, and the folders above that are empty then.
    pub fn forget(&self, id: &str) -> Result<()> {
        remove_tree(&self.folder(id))?;
        let (containers, bundles) = (self.containers(), self.bundles());
        let empty = containers.ancestors().take(2).chain(bundles.ancestors().take(2));
        for folder in empty.chain([self.root.join("s").as_path()]) {
            // Fails as long as something is in it, which is the point.
            let _ = fs::remove_dir(folder);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str) -> Record {
        Record {
            id: id.to_owned(),
            shim: "/s".into(),
            generation: "1.6".to_owned(),
            answer: Some(Answer {
                version: 2,
                address: "unix:///a".to_owned(),
                protocol: "ttrpc".to_owned(),
            }),
            events: "/e".into(),
            pid: 7,
            command: vec!["sh".to_owned()],
            rootfs: "host".to_owned(),
            created_at: 1,
        }
    }

    #[test]
    fn records_come_back_and_leave_no_trace() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), "ns").unwrap();
        assert_eq!(store.list().unwrap(), Vec::<String>::new());
        for id in ["b", "a"] {
            store.save(&record(id)).unwrap();
        }
        store.claim("unfinished").unwrap();
        assert!(store.claim("unfinished").is_err());
        assert!(store.is_claimed("unfinished") && !store.is_claimed("../ns/unfinished"));
        assert_eq!(store.list().unwrap(), ["a", "b"]);
        assert_eq!(store.load("a").unwrap(), record("a"));
        for id in ["a", "b", "unfinished"] {
            store.forget(id).unwrap();
        }
        assert!(store.load("a").unwrap_err().to_string().contains("shimctl ps"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn namespaces_do_not_see_each_other_and_no_name_leads_out() {
        let dir = tempfile::tempdir().unwrap();
        Store::open(dir.path(), "one").unwrap().save(&record("a")).unwrap();
        let other = Store::open(dir.path(), "two").unwrap();
        assert!(other.load("a").is_err());
        assert!(other.load("../one/a").is_err());
        assert!(Store::open(dir.path(), "..").is_err());
    }
}
