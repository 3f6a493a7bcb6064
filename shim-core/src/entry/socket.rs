//! The socket of a shim: its name, and who may have it.
//!
//! The name is a hash of containerd's address, the namespace and the group, so that bundles of one
//! group find the same shim. A lock on the directory makes one step of looking and binding: of
//! many starts of one group, just one gets to serve.

use std::{
    fs::{self, DirBuilder, File, Permissions},
    io,
    os::{
        fd::OwnedFd,
        unix::{
            fs::{DirBuilderExt, PermissionsExt},
            net::UnixListener,
        },
    },
    path::{Component, Path, PathBuf},
    time::{Duration, Instant},
};

use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest, Sha256};

use super::probe::{self, Heard};
use crate::{
    error::{Context, Error, Result},
    model::{ContainerId, Group},
};

/// Where every containerd up to 2.2 has its shims' sockets, whatever its own state directory.
const DEFAULT_DIRECTORY: &str = "/run/containerd/s";
/// How long a process may take to die.
const DYING: Duration = Duration::from_secs(3);
/// `sun_path` without its final NUL (unix(7)).
const LONGEST: usize = 106;

/// A shim's socket file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Socket {
    path: PathBuf,
}

/// What became of asking for a socket.
#[derive(Debug)]
pub(super) enum Claim {
    /// Nobody had it: it is ours to serve.
    Ours(OwnedFd),
    /// A live shim of the group serves there.
    Taken,
}

impl Socket {
    /// The socket of a group, by containerd's rule.
    ///
    /// # Errors
    /// `InvalidArgument` when the directory makes the path too long for a socket.
    pub(super) fn of_group(
        directory: Option<&str>,
        address: &str,
        namespace: &str,
        group: &Group,
    ) -> Result<Self> {
        let key = clean(&format!("{address}/{namespace}/{}", group.as_str()));
        let name = hex::encode(Sha256::digest(key.as_bytes()));
        let path = Path::new(directory.unwrap_or(DEFAULT_DIRECTORY)).join(name);
        if path.as_os_str().len() > LONGEST {
            return Err(Error::invalid(format!("socket path {} is too long", path.display())));
        }
        Ok(Self { path })
    }

    /// The socket named by an address that a shim has written.
    pub(super) fn of_address(address: &str) -> Option<Self> {
        let path = PathBuf::from(address.trim().strip_prefix("unix://")?);
        path.is_absolute().then_some(Self { path })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// As containerd wants to hear it.
    pub(super) fn address(&self) -> String {
        format!("unix://{}", self.path.display())
    }

    /// Binds it, unless a live shim has it: that one is told of the container to come. A dead
    /// shim's leftover is replaced.
    ///
    /// # Errors
    /// What could not be made, and why.
    pub(super) fn claim(&self, id: &ContainerId) -> Result<Claim> {
        let _lock = self.lock()?;
        if self.is_served(|path| probe::announce(path, id)) {
            return Ok(Claim::Taken);
        }
        remove(&self.path)?;
        let listener = UnixListener::bind(&self.path)
            .with_context(|| format!("bind {}", self.path.display()))?;
        fs::set_permissions(&self.path, Permissions::from_mode(0o600))
            .with_context(|| format!("protect {}", self.path.display()))?;
        Ok(Claim::Ours(listener.into()))
    }

    /// Removes the socket of a shim that is gone. A live one keeps it, and ends by itself if this
    /// was all that it was there for.
    ///
    /// # Errors
    /// What could not be removed, and why.
    pub(super) fn release(&self, id: &ContainerId) -> Result<()> {
        if !self.path.exists() {
            return Ok(());
        }
        let _lock = self.lock()?;
        if self.is_served(|path| probe::release(path, id)) {
            return Ok(());
        }
        remove(&self.path)
    }

    /// Whether a live shim listens. One that is on its way out is waited for: it takes connections,
    /// and drops them.
    fn is_served(&self, ask: impl Fn(&Path) -> Heard) -> bool {
        let begun = Instant::now();
        loop {
            match ask(&self.path) {
                Heard::Answer | Heard::Silence => return true,
                Heard::Nothing => return false,
                // Each turn ends when the kernel closes one more connection.
                Heard::Dropped if begun.elapsed() < DYING => {}
                Heard::Dropped => return true,
            }
        }
    }

    /// Removes it, whoever listens: for the shim that does, at its end.
    ///
    /// # Errors
    /// What could not be removed, and why.
    pub(super) fn remove(&self) -> Result<()> {
        remove(&self.path)
    }

    fn lock(&self) -> Result<Flock<File>> {
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        let mut make = DirBuilder::new();
        make.recursive(true)
            .mode(0o700)
            .create(directory)
            .with_context(|| format!("make {}", directory.display()))?;
        let opened =
            File::open(directory).with_context(|| format!("open {}", directory.display()))?;
        Flock::lock(opened, FlockArg::LockExclusive)
            .map_err(|(_, err)| Error::from(err))
            .with_context(|| format!("lock {}", directory.display()))
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => {
            Err(err).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Cleans a path as Go's `filepath.Join` does, for the hash has to be the same: no empty parts, no
/// dots, `..` resolved by name.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let rooted = path.starts_with('/');
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => parts.push(name.to_str().unwrap_or_default()),
            Component::ParentDir => match parts.last() {
                Some(&"..") | None if !rooted => parts.push(".."),
                _ => drop(parts.pop()),
            },
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    let joined = parts.join("/");
    if rooted { format!("/{joined}") } else { joined }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(id: &str) -> Group {
        Group::alone(&ContainerId::parse(id).unwrap())
    }

    #[test]
    fn the_name_is_the_hash_of_the_clean_path() {
        let plain =
            Socket::of_group(None, "/run/containerd/containerd.sock", "default", &group("t1"));
        let dirty = Socket::of_group(
            None,
            "/run//x/../containerd/containerd.sock/",
            "default",
            &group("t1"),
        );
        assert_eq!(plain.unwrap(), dirty.unwrap());
    }

    #[test]
    fn paths_are_cleaned_as_go_does() {
        assert_eq!(clean("/a//b/./c/../d/"), "/a/b/d");
        assert_eq!(clean("/../a"), "/a");
        assert_eq!(clean("../a/../.."), "../..");
    }

    #[test]
    fn a_claim_is_won_once_and_a_dead_one_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().to_str().unwrap();
        let socket = Socket::of_group(Some(dir), "/c.sock", "ns", &group("a")).unwrap();
        let id = ContainerId::parse("a").unwrap();
        let Claim::Ours(listener) = socket.claim(&id).unwrap() else { panic!("nobody had it") };
        // It says nothing, as a shim that is stopped.
        assert!(matches!(socket.claim(&id).unwrap(), Claim::Taken));
        assert_eq!(fs::metadata(&socket.path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(listener);
        assert!(matches!(socket.claim(&id).unwrap(), Claim::Ours(_)));
        socket.release(&id).unwrap();
        assert!(!socket.path.exists());
    }

    #[test]
    fn a_path_too_long_for_a_socket_is_refused() {
        let long = format!("/{}", "d".repeat(60));
        assert!(Socket::of_group(Some(&long), "/c", "ns", &group("a")).is_err());
    }
}
