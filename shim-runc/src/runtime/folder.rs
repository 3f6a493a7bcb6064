//! A container's directory: the claim to its id, the lock, and the files in it.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};
use oci_spec::runtime::Spec;
use shim_core::{Context, Error, Kind, Result, model::Bundle};

use super::{Runtime, id, state::Saved};
use crate::spec;

const STATE: &str = "state.json";
const SPEC: &str = "config.json";

/// The directory of a container.
#[derive(Debug)]
pub(super) struct Folder {
    /// The same as a bundle: it has a spec, and a record.
    bundle: Bundle,
    id: Box<str>,
    /// Held by whoever changes the container.
    _lock: Option<Flock<File>>,
}

impl Runtime {
    /// Claims an id: nobody else can make a container of that name.
    ///
    /// # Errors
    /// `AlreadyExists` when it is taken.
    pub(super) fn claim(&self, id: &str) -> Result<Folder> {
        id::check(id)?;
        let root = &self.root;
        let mut make = DirBuilder::new();
        make.mode(0o700);
        make.recursive(true).create(root).with_context(|| format!("make {}", root.display()))?;
        let path = root.join(id);
        match make.recursive(false).create(&path) {
            Ok(()) => {}
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {
                let why = format!("container with id exists already: {id}");
                return Err(Error::new(Kind::AlreadyExists, why));
            }
            Err(err) => return Err(Error::from(err).context(format!("make {}", path.display()))),
        }
        // Whoever deletes it in this moment has the right to.
        self.locked(id)
    }

    /// Finds a container, to look at it.
    ///
    /// # Errors
    /// `NotFound` when there is none.
    pub(super) fn find(&self, id: &str) -> Result<Folder> {
        id::check(id)?;
        let path = self.root.join(id);
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return Err(missing(id)),
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Err(missing(id)),
            Err(err) => {
                return Err(Error::from(err).context(format!("look at {}", path.display())));
            }
        }
        Ok(Folder { bundle: Bundle::new(path)?, id: id.into(), _lock: None })
    }

    /// Finds a container, to change it; waits for whoever does already.
    ///
    /// # Errors
    /// `NotFound` when there is none.
    pub(super) fn locked(&self, id: &str) -> Result<Folder> {
        let mut folder = self.find(id)?;
        let path = folder.path().to_owned();
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Err(missing(id)),
            Err(err) => return Err(Error::from(err).context(format!("open {}", path.display()))),
        };
        let lock = lock(file).with_context(|| format!("lock {}", path.display()))?;
        // It may have been deleted, and another one made, while we waited.
        let is_same = |there: fs::Metadata| {
            lock.metadata().is_ok_and(|ours| (ours.dev(), ours.ino()) == (there.dev(), there.ino()))
        };
        if !fs::symlink_metadata(&path).is_ok_and(is_same) {
            return Err(missing(id));
        }
        folder._lock = Some(lock);
        Ok(folder)
    }

    /// The ids of all containers, in the order of the alphabet.
    ///
    /// # Errors
    /// When the root can't be read; one that is not there has none.
    pub(super) fn ids(&self) -> Result<Vec<String>> {
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(err) => {
                return Err(Error::from(err).context(format!("read {}", self.root.display())));
            }
        };
        let name = |entry: fs::DirEntry| entry.file_name().into_string().ok();
        let mut ids: Vec<_> = entries.flatten().filter_map(name).collect();
        ids.retain(|name| id::check(name).is_ok());
        ids.sort();
        Ok(ids)
    }
}

impl Folder {
    /// Lets others change the container.
    pub(super) fn unlock(&mut self) {
        self._lock = None;
    }

    pub(super) fn path(&self) -> &Path {
        self.bundle.path()
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// The directory as what holds a spec and a record.
    pub(super) fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// Keeps a bundle's spec: what becomes of the file later changes nothing.
    ///
    /// # Errors
    /// `InvalidArgument` when there is none.
    pub(super) fn keep_spec(&self, bundle: &Bundle) -> Result<Box<Spec>> {
        let path = bundle.path().join(SPEC);
        let text = fs::read(&path)
            .map_err(|err| Error::invalid(format!("read {}: {err}", path.display())))?;
        fs::write(self.path().join(SPEC), text).context("keep the spec")?;
        self.spec()
    }

    /// Reads the container's spec.
    ///
    /// # Errors
    /// When it makes no sense.
    pub(super) fn spec(&self) -> Result<Box<Spec>> {
        spec::read(&self.bundle)
    }

    /// Writes what is known of the container.
    ///
    /// # Errors
    /// What could not be written.
    pub(super) fn save(&self, saved: &Saved) -> Result<()> {
        self.bundle.write(STATE, &serde_json::to_vec(saved)?)
    }

    /// Reads what is known of the container.
    ///
    /// # Errors
    /// `NotFound` when its making has not come that far.
    pub(super) fn load(&self) -> Result<Saved> {
        let path = self.path().join(STATE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Err(missing(&self.id)),
            Err(err) => return Err(Error::from(err).context(format!("read {}", path.display()))),
        };
        Saved::parse(&text).with_context(|| format!("parse {}", path.display()))
    }

    /// The file that the container's own hooks print into.
    ///
    /// # Errors
    /// When it can't be made.
    pub(super) fn make_output(&self) -> Result<File> {
        let path = self.output();
        let file = File::options().read(true).append(true).create(true).open(&path);
        file.with_context(|| format!("make {}", path.display()))
    }

    /// Where they do.
    pub(super) fn output(&self) -> PathBuf {
        self.path().join("output")
    }

    /// Gives the id back after an error, which stays what it was.
    pub(super) fn abandon(self, err: Error) -> Error {
        if let Err(left) = self.remove() {
            log::warn!("{left:#}");
        }
        err
    }

    /// Removes the directory, and so gives the id back.
    ///
    /// # Errors
    /// What stays.
    pub(super) fn remove(self) -> Result<()> {
        let path = self.path();
        match fs::remove_dir_all(path) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => {
                Err(Error::from(err).context(format!("remove {}", path.display())))
            }
            _ => Ok(()),
        }
    }
}

fn missing(id: &str) -> Error {
    Error::not_found(format!("container {id:?} does not exist"))
}

fn lock(mut file: File) -> Result<Flock<File>, Errno> {
    loop {
        match Flock::lock(file, FlockArg::LockExclusive) {
            Ok(lock) => return Ok(lock),
            Err((back, Errno::EINTR)) => file = back,
            Err((_, errno)) => return Err(errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Files;

    #[test]
    fn an_id_is_claimed_once_and_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let runtime = Runtime::new(dir.path().join("root"), Files::default()).unwrap();
        assert!(runtime.ids().unwrap().is_empty());
        let folder = runtime.claim("a").unwrap();
        assert_eq!(runtime.claim("a").unwrap_err().kind(), Kind::AlreadyExists);
        assert_eq!(runtime.ids().unwrap(), ["a"]);
        assert_eq!(folder.load().unwrap_err().kind(), Kind::NotFound);
        folder.remove().unwrap();
        assert_eq!(runtime.find("a").unwrap_err().kind(), Kind::NotFound);
        runtime.claim("a").unwrap();
    }

    #[test]
    fn who_waited_for_a_container_that_was_deleted_hears_so() {
        let dir = tempfile::tempdir().unwrap();
        let runtime = Runtime::new(dir.path(), Files::default()).unwrap();
        let folder = runtime.claim("a").unwrap();
        let waiting = runtime.clone();
        let (begun, begins) = std::sync::mpsc::channel();
        let waits = std::thread::spawn(move || {
            begun.send(()).unwrap();
            waiting.locked("a").map(drop)
        });
        begins.recv().unwrap();
        // Whether it looks before or after this, it finds nothing.
        folder.remove().unwrap();
        assert_eq!(waits.join().unwrap().unwrap_err().kind(), Kind::NotFound);
    }
}
