//! `start`: finds the group's shim or makes one, and tells its address.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::FileTypeExt,
    },
};

use nix::{fcntl::OFlag, unistd};

use super::{
    bootstrap::{Bootstrap, Environment},
    flags::Flags,
    kind::Kind,
    read_text,
    serve::{self, Legacy, Wishes},
    socket::{Claim, Socket},
    variable,
};
use crate::{
    backend::{Backend, Coming},
    error::{Context, Error, Result},
    linux::sys::{self, Forked},
    model::{Bundle, ContainerId, Group, Namespace, Pid, Sharing},
};

/// Says for all containers of a containerd what the runtime's options can say for some.
const GROUPING: &str = "SHIM_GROUPING";

/// More than any options that make sense.
const STDIN_LIMIT: u64 = 10 << 20;

/// What has become of this process.
pub(super) enum Started {
    /// The one that was started, with the answer for stdout.
    Starter(Vec<u8>),
    /// The one that serves from here on.
    Shim(Legacy),
}

/// Starts a shim, if the group has none.
pub(super) fn start<B: Backend>(
    backend: &B,
    flags: &Flags,
    kind: &impl Kind<B>,
) -> Result<Started> {
    let namespace = Namespace::parse(&flags.namespace)?;
    let id = ContainerId::parse(&flags.id)?;
    let bundle = bundle(flags)?;
    let environment = Environment {
        ttrpc_address: variable("TTRPC_ADDRESS"),
        max_shim_version: variable("MAX_SHIM_VERSION"),
        bundle: bundle.path().to_owned(),
    };
    let bootstrap = Bootstrap::parse(&read_stdin()?, flags, environment);
    let sharing = if kind.is_a_pods() { Sharing::Pod } else { sharing(backend, &bootstrap)? };
    let group = match sharing {
        Sharing::Pod => backend.group(&id, &bundle)?,
        Sharing::Namespace => Group::of_namespace(&bundle)?,
    };
    let directory = bootstrap.socket_dir.as_deref();
    let socket = Socket::of_group(directory, &bootstrap.address, namespace.as_str(), &group)?;
    // First of all: `delete` finds the shim by it, however soon this process is killed.
    bundle.write("address", socket.address().as_bytes())?;
    if let Claim::Ours(listener) = socket.claim(&id)? {
        let made = cgroup(backend, &bootstrap)
            .and_then(|cgroup| {
                let options = bootstrap.options.clone();
                make_shim(listener, &bootstrap, Coming { id, bundle, options }, cgroup)
            })
            .inspect_err(|_| drop(socket.remove()))?;
        if let Some(legacy) = made {
            return Ok(Started::Shim(legacy));
        }
    }
    bootstrap.dialect.answer(&socket.address()).map(Started::Starter)
}

/// Who shares the shim: by the runtime's options, else by the environment, which is containerd's.
fn sharing(backend: &impl Backend, bootstrap: &Bootstrap) -> Result<Sharing> {
    for options in &bootstrap.options {
        if let Some(sharing) = backend.sharing(options)? {
            return Ok(sharing);
        }
    }
    variable(GROUPING).map_or(Ok(Sharing::default()), |word| word.parse().context(GROUPING))
}

/// The cgroup that the runtime's options name for the shim.
fn cgroup(backend: &impl Backend, bootstrap: &Bootstrap) -> Result<Option<String>> {
    for options in &bootstrap.options {
        if let Some(cgroup) = backend.shim_cgroup(options)? {
            return Ok(Some(cgroup));
        }
    }
    Ok(None)
}

/// containerd starts a shim in its bundle.
fn bundle(flags: &Flags) -> Result<Bundle> {
    match &flags.bundle {
        Some(path) => Bundle::new(path),
        None => {
            let here = fs::read_link("/proc/self/cwd").context("find the bundle")?;
            Bundle::new(here)
        }
    }
}

/// Reads what containerd sent; a terminal or `/dev/null` sends nothing.
pub(super) fn read_stdin() -> Result<Vec<u8>> {
    let Ok(stdin) = io::stdin().as_fd().try_clone_to_owned() else { return Ok(Vec::new()) };
    let stdin = File::from(stdin);
    let is_device = stdin.metadata().is_ok_and(|told| told.file_type().is_char_device());
    let mut sent = Vec::new();
    if !is_device {
        stdin.take(STDIN_LIMIT).read_to_end(&mut sent).context("read stdin")?;
    }
    Ok(sent)
}

/// Makes the serving process, and returns once it is ready or has said why not; returns in that
/// process, too.
///
/// It is a fork and no new program: an exec would cost as much again as all else here.
fn make_shim(
    listener: OwnedFd,
    bootstrap: &Bootstrap,
    coming: Coming,
    cgroup: Option<String>,
) -> Result<Option<Legacy>> {
    let (reader, writer) = unistd::pipe2(OFlag::O_CLOEXEC).context("make a pipe")?;
    let pid = match sys::fork_daemon().context("make the serving process")? {
        Forked::Parent(pid) => pid,
        Forked::Child => {
            return Ok(Some(Legacy {
                listener,
                ready: writer,
                coming,
                wishes: Wishes {
                    ttrpc_address: bootstrap.ttrpc_address.clone(),
                    debug: bootstrap.debug,
                    cgroup,
                },
            }));
        }
    };
    drop(writer);
    if let Err(err) = raise_oom_score(pid) {
        log::debug!("{err:#}");
    }
    let mut complaint = String::new();
    File::from(reader).read_to_string(&mut complaint).context("wait for the shim")?;
    match complaint.strip_prefix(serve::IS_READY) {
        Some(_) => Ok(None),
        None if complaint.is_empty() => Err(Error::other("the serving process died at once")),
        None => Err(Error::other(complaint)),
    }
}

/// The kernel's killer should rather take a shim than containerd: one more than its score.
fn raise_oom_score(pid: Pid) -> Result<()> {
    let parent = unistd::getppid();
    let score = read_text(&format!("/proc/{parent}/oom_score_adj"))?;
    let score: i32 = score.trim().parse().unwrap_or(0);
    let path = format!("/proc/{pid}/oom_score_adj");
    fs::write(&path, (score + 1).min(1000).to_string()).with_context(|| format!("write {path}"))
}
