//! What a shim gets to know of the containerd that starts it.

use std::path::PathBuf;
use std::time::Duration;

use crate::generation::Generation;
use crate::shim_log::LogTo;

/// The containerd to pose as.
#[derive(Clone, Debug)]
pub struct Daemon {
    /// Which releases to act like.
    pub generation: Generation,
    /// containerd's namespace, a part of every container's identity.
    pub namespace: String,
    /// The daemon's gRPC socket. No shim connects to it, but its path is hashed into the name of
    /// the shim's socket, so two daemons need two.
    pub grpc_address: PathBuf,
    /// The socket of the events service.
    pub ttrpc_address: PathBuf,
    /// The daemon's executable, by which old shims published events.
    pub publish_binary: PathBuf,
    /// Where shims put their sockets, from 2.3 on; none leaves it to the shim.
    pub socket_dir: Option<PathBuf>,
    /// Whether shims are to log in detail.
    pub debug: bool,
    /// Where their log goes.
    pub log: LogTo,
    /// How long a shim may take.
    pub limits: Limits,
}

/// How long a shim may take for what it must not hang in.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For the `start` action. containerd leaves it to its client's patience.
    pub start: Duration,
    /// For the `delete` action.
    pub clean_up: Duration,
    /// For the Create and the Start call. containerd sends no deadline, and neither do we:
    /// we only give up waiting.
    pub create: Duration,
    /// For the State call.
    pub state: Duration,
    /// For the Shutdown call.
    pub shutdown: Duration,
    /// For the end of the output, once a task is deleted.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            start: Duration::from_secs(30),
            clean_up: Duration::from_secs(5),
            create: Duration::from_secs(120),
            state: Duration::from_secs(2),
            shutdown: Duration::from_secs(3),
            drain: Duration::from_secs(2),
        }
    }
}
