//! virtiofsd: serves a folder of the host to one guest, from a sandbox of its own.
//!
//! It runs as root, for files have owners; so nothing but its sandbox is between a guest and the host. It
//! is never started without: with it goes a root of its own, the folder, and seccomp.

use std::{
    ffi::OsString,
    os::{
        fd::OwnedFd,
        unix::{
            fs::DirBuilderExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
};

use shim_core::{
    Context, Error, Result,
    linux::Reaper,
    model::{Exit, Pid},
};
use tokio::sync::watch;

use super::{Launch, process::Process};
use crate::confine::Confinement;

/// The number of the socket on which it waits for QEMU.
const SOCKET: usize = 3;

/// A server of one folder. Dropped, it is killed.
#[derive(Debug)]
pub struct Virtiofsd {
    process: Process,
}

impl Virtiofsd {
    /// Serves a folder, which is a shared mount if what is mounted on it later is to be seen. `scratch` is
    /// a folder of ours, where a socket lies for a moment. Returns the connection for the machine, too.
    ///
    /// # Errors
    /// `InvalidArgument` for arguments that would take its sandbox away; else why it does not run.
    pub async fn start(
        reaper: &Reaper,
        launch: &Launch,
        cgroups: Vec<PathBuf>,
        folder: &Path,
        scratch: &Path,
    ) -> Result<(Self, OwnedFd)> {
        refuse_unconfined(&launch.arguments)?;
        let (listener, connection) = connected(scratch)?;
        let confinement = Confinement { cgroups, ..Confinement::default() };
        let arguments = arguments(folder);
        let files = vec![listener.into()];
        let process = Process::start(reaper, launch, &confinement, arguments, files).await?;
        Ok((Self { process }, connection.into()))
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        self.process.pid
    }

    /// Its end, once that has come.
    pub fn exited(&self) -> watch::Receiver<Option<Exit>> {
        self.process.exited.clone()
    }

    /// The last of what it has said, fit to be shown.
    pub fn said(&self) -> String {
        self.process.console.tail()
    }
}

fn arguments(folder: &Path) -> Vec<OsString> {
    let mut shared = OsString::from("--shared-dir=");
    shared.push(folder);
    let fixed = [
        format!("--fd={SOCKET}"),
        "--sandbox=namespace".to_owned(),
        "--seccomp=kill".to_owned(),
        // Filesystems below the folder are told apart: their files may have the same numbers.
        "--announce-submounts".to_owned(),
        // Capabilities of programs, and what users set.
        "--xattr".to_owned(),
        "--log-level=warn".to_owned(),
    ];
    fixed.into_iter().map(OsString::from).chain([shared]).collect()
}

/// The last of two equal flags counts, and ours are last; a flag that is not ours to repeat could still
/// open what they close.
fn refuse_unconfined(arguments: &[String]) -> Result<()> {
    const ITS_OWN: [&str; 6] =
        ["--sandbox", "--seccomp", "--modcaps", "--shared-dir", "-o", "--socket-path"];
    let flag = |word: &String| word.split('=').next().map(str::to_owned).unwrap_or_default();
    match arguments.iter().find(|word| ITS_OWN.contains(&flag(word).as_str())) {
        Some(word) => {
            let why = format!("virtiofsd's argument {word}: it is not for choosing");
            Err(Error::invalid(why))
        }
        None => Ok(()),
    }
}

/// A listening socket with one connection waiting, and that connection. Its name is gone: nobody else
/// gets in.
fn connected(scratch: &Path) -> Result<(UnixListener, UnixStream)> {
    let folder = scratch.join("virtiofsd");
    std::fs::DirBuilder::new()
        .mode(0o700)
        .create(&folder)
        .with_context(|| format!("make {}", folder.display()))?;
    let path = folder.join("s");
    let connected = UnixListener::bind(&path).and_then(|listener| {
        let connection = UnixStream::connect(&path)?;
        Ok((listener, connection))
    });
    // What is left of a failure is not what matters.
    let _gone = std::fs::remove_dir_all(&folder);
    connected.with_context(|| format!("connect at {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_takes_the_sandbox_away() {
        for word in ["--sandbox=none", "--seccomp", "--modcaps=+sys_admin", "-o"] {
            let err = refuse_unconfined(&[word.to_owned()]).unwrap_err();
            assert!(err.to_string().contains(word), "{err}");
        }
        let loader = ["--library-path", "/lib", "/usr/libexec/virtiofsd"];
        refuse_unconfined(&loader.map(str::to_owned)).unwrap();
        let arguments = arguments(Path::new("/share"));
        assert!(arguments.contains(&"--sandbox=namespace".into()));
        assert!(arguments.contains(&"--seccomp=kill".into()));
    }

    #[test]
    fn a_socket_is_connected_and_has_no_name() {
        let dir = tempfile::tempdir().unwrap();
        let (listener, connection) = connected(dir.path()).unwrap();
        let (theirs, _) = listener.accept().unwrap();
        assert_eq!(
            theirs.peer_addr().unwrap().as_pathname(),
            connection.local_addr().unwrap().as_pathname()
        );
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
