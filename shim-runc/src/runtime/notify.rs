//! Telling a supervisor that a container's program is ready, sd_notify(3).
//!
//! The program gets a socket of its own, in a directory that is bound into the container. What comes
//! from there is not to be trusted: all that is passed on is the one line that says so, and it is we who
//! name the process that it is about.

use std::{
    ffi::OsStr,
    fs::{self, DirBuilder},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            fs::{DirBuilderExt, PermissionsExt},
            net::{SocketAddr, UnixDatagram as StdDatagram},
        },
    },
    path::Path,
    time::Duration,
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, open, openat},
    sys::stat::{Mode, SFlag, fstat},
    unistd::pipe2,
};
use oci_spec::runtime::{MountBuilder, Process as OciProcess, Spec};
use shim_core::{
    Context, Error, Result,
    linux::{open_pid, watch},
    model::Pid,
};
use tokio::{net::UnixDatagram, time::timeout};

use crate::engine::send;

/// Where the directory is, in the container's own and in the container.
const DIRECTORY: &str = "notify";
const INSIDE: &str = "/run/notify";
const SOCKET: &str = "notify.sock";
/// What tells a program of it.
const VARIABLE: &str = "NOTIFY_SOCKET=";
/// The length from which systemd takes no message, PIPE_BUF.
const LONGEST: usize = 4096;
/// How many messages of a program that has ended are still read: more than a socket keeps by itself.
const LEFT: usize = 1024;
/// How long a supervisor may take to hear what it was told.
const PATIENCE: Duration = Duration::from_secs(5);

/// Who is to hear that a program is ready: the socket that `NOTIFY_SOCKET` names.
#[derive(Clone, Debug)]
pub struct Supervisor(SocketAddr);

impl Supervisor {
    /// Parses an address as sd_notify(3) has it: an absolute path, or `@` and an abstract name.
    ///
    /// # Errors
    /// `InvalidArgument` for any other.
    pub fn parse(address: &OsStr) -> Result<Self> {
        let parsed = match address.as_bytes() {
            [b'@', name @ ..] => {
                SocketAddr::from_abstract_name(name).map_err(|err| err.to_string())
            }
            [b'/', ..] => SocketAddr::from_pathname(address).map_err(|err| err.to_string()),
            _ => Err("it is neither an absolute path nor an abstract name".to_owned()),
        };
        parsed.map(Self).map_err(|why| Error::invalid(format!("NOTIFY_SOCKET {address:?}: {why}")))
    }

    /// Tells which process is ready. Returns when that is heard, or seems to be heard by nobody: whoever
    /// told it may be gone before, and then systemd does not know whose message it was.
    async fn tell(&self, main: Pid) -> Result<()> {
        let socket = StdDatagram::unbound()?;
        socket.connect_addr(&self.0)?;
        socket.set_nonblocking(true)?;
        let socket = UnixDatagram::from_std(socket)?;
        let told = async {
            socket.send(format!("MAINPID={main}\nREADY=1\n").as_bytes()).await?;
            let (heard, held) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
            // sd_notify_barrier(3): it is closed where the messages before it have been read.
            socket.writable().await?;
            send(socket.as_fd(), b"BARRIER=1", &[held.as_fd()])?;
            drop(held);
            watch(heard)?.readable().await.map(drop)?;
            Ok(())
        };
        let late = |_| Error::other("it does not read what it is told");
        timeout(PATIENCE, told).await.map_err(late)?
    }
}

/// Gives the program of a spec the directory of the socket, and its name. One that has a socket already
/// keeps that. Tells whether it was given.
///
/// # Errors
/// When the directory can't be made.
pub(super) fn offer(directory: &Path, spec: &mut Spec) -> Result<bool> {
    let environment = |process: &OciProcess| process.env().clone().unwrap_or_default();
    let Some(mut variables) = spec.process().as_ref().map(environment) else { return Ok(false) };
    if variables.iter().any(|one| one.starts_with(VARIABLE)) {
        return Ok(false);
    }
    let source = directory.join(DIRECTORY);
    // Any user of the container's may look for the socket.
    let made = DirBuilder::new().recursive(true).mode(0o755).create(&source);
    made.with_context(|| format!("make {}", source.display()))?;
    variables.push(format!("{VARIABLE}{INSIDE}/{SOCKET}"));
    if let Some(process) = spec.process_mut() {
        process.set_env(Some(variables));
    }
    let options = ["bind", "nosuid", "noexec", "nodev", "ro"].map(str::to_owned);
    let mount = MountBuilder::default().destination(INSIDE).source(source).options(options).build();
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    mounts.push(mount.map_err(|err| Error::other(err.to_string()))?);
    spec.set_mounts(Some(mounts));
    Ok(true)
}

/// The socket that a container's program tells that it is ready.
#[derive(Debug)]
pub struct Readiness {
    socket: UnixDatagram,
    supervisor: Supervisor,
}

impl Readiness {
    /// Begins to listen, in a directory that [`offer`] has made.
    ///
    /// # Errors
    /// When the socket can't be made.
    pub(super) fn listen(directory: &Path, supervisor: &Supervisor) -> Result<Self> {
        let path = directory.join(DIRECTORY);
        let socket =
            bind(&path).with_context(|| format!("make {}", path.join(SOCKET).display()))?;
        Ok(Self { socket, supervisor: supervisor.clone() })
    }

    /// Waits until the program of an init process says that it is ready, or ends, and passes that on as
    /// news of the process that the supervisor is to watch. Nothing is lost that it says before its end.
    /// A supervisor that can't be told is a warning: the container runs.
    pub async fn relay(self, init: Pid, main: Pid) {
        if let Err(err) = self.try_relay(init, main).await {
            log::warn!("{err:#}");
        }
    }

    async fn try_relay(&self, init: Pid, main: Pid) -> Result<()> {
        if self.hear(init).await.context("listen to the program")? {
            self.supervisor.tell(main).await.context("tell the supervisor")?;
        }
        Ok(())
    }

    async fn hear(&self, init: Pid) -> Result<bool> {
        // None has ended already.
        let ended = open_pid(init).ok().map(watch).transpose()?;
        let mut bytes = [0; LONGEST];
        while let Some(ended) = &ended {
            tokio::select! {
                length = self.socket.recv(&mut bytes) => {
                    if is_ready(&bytes[..length?]) {
                        return Ok(true);
                    }
                }
                end = ended.readable() => {
                    end.map(drop)?;
                    break;
                }
            }
        }
        // The socket does not wait. Other processes may go on, but not keep us.
        let mut rest = (0..LEFT)
            .map_while(|_| self.socket.try_recv(&mut bytes).ok().map(|n| bytes[..n].to_vec()));
        Ok(rest.any(|said| is_ready(&said)))
    }
}

/// Makes the socket, for all users of the container. Nothing in the directory is trusted: a process that
/// was added before the start may have been there.
fn bind(path: &Path) -> Result<UnixDatagram> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let directory = open(path, flags | OFlag::O_DIRECTORY, Mode::empty())?;
    let by_number = |fd: &OwnedFd| Path::new("/proc/self/fd").join(fd.as_raw_fd().to_string());
    // However long the directory's name is, an address has 108 bytes.
    let socket = UnixDatagram::bind(by_number(&directory).join(SOCKET))?;
    let file = openat(&directory, SOCKET, flags, Mode::empty())?;
    if SFlag::from_bits_truncate(fstat(&file)?.st_mode) & SFlag::S_IFMT != SFlag::S_IFSOCK {
        return Err(Errno::ENOTSOCK.into());
    }
    fs::set_permissions(by_number(&file), fs::Permissions::from_mode(0o777))?;
    Ok(socket)
}

/// Whether a message says so. One that may have been cut says nothing.
fn is_ready(message: &[u8]) -> bool {
    message.len() < LONGEST && message.split(|byte| *byte == b'\n').any(|line| line == b"READY=1")
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use shim_core::Kind;

    use super::*;

    #[test]
    fn an_address_is_a_path_or_an_abstract_name() {
        let parse = |text: &str| Supervisor::parse(OsStr::new(text)).map(|parsed| parsed.0);
        assert_eq!(parse("/run/s").unwrap().as_pathname(), Some(Path::new("/run/s")));
        assert_eq!(parse("@a/b").unwrap().as_abstract_name(), Some(&b"a/b"[..]));
        for bad in ["", "run/s", "vsock:2:1", &format!("/{}", "x".repeat(200))] {
            assert_eq!(parse(bad).unwrap_err().kind(), Kind::InvalidArgument, "{bad}");
        }
    }

    #[test]
    fn only_a_line_of_its_own_says_that_a_program_is_ready() {
        for (message, expected) in [
            (&b"READY=1"[..], true),
            (b"STATUS=up\nREADY=1\nMAINPID=1\n", true),
            (b"READY=10", false),
            (b"STATUS=READY=1", false),
            (b"READY=0", false),
            (b"\xff\0", false),
            (b"", false),
        ] {
            assert_eq!(is_ready(message), expected, "{message:?}");
        }
        let mut long = b"READY=1\n".to_vec();
        long.resize(LONGEST, b'x');
        assert!(!is_ready(&long));
    }

    #[test]
    fn a_program_is_told_where_the_socket_is_unless_it_has_one() {
        let dir = tempfile::tempdir().unwrap();
        let spec = |environment: serde_json::Value| -> Spec {
            let process = json!({ "user": { "uid": 0, "gid": 0 }, "args": ["x"], "cwd": "/",
                "env": environment });
            serde_json::from_value(json!({ "ociVersion": "1.2.0", "process": process })).unwrap()
        };
        let mut one = spec(json!(["A=b"]));
        assert!(offer(dir.path(), &mut one).unwrap());
        let variables = one.process().as_ref().unwrap().env().clone().unwrap();
        assert_eq!(variables, ["A=b", "NOTIFY_SOCKET=/run/notify/notify.sock"]);
        let mount = &one.mounts().as_ref().unwrap()[0];
        assert_eq!(mount.source().as_deref(), Some(dir.path().join("notify").as_path()));
        let mut other = spec(json!(["NOTIFY_SOCKET=/x"]));
        assert!(!offer(dir.path(), &mut other).unwrap());
        assert!(other.mounts().is_none());
    }
}
