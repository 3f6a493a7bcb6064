//! The client of a shim: containerd's side of the contract, with no containerd.
//!
//! It keeps the part of the contract that containerd keeps: the bundle, the way a shim binary is
//! executed, the events service, the order of calls, and the cleaning up. So a shim cannot tell the
//! difference, in whichever generation of containerd it is addressed. It depends on the wire types
//! only and judges any shim, ours or not.
//!
//! ```text
//! Daemon, ShimBinary ─┐
//! SpecBuilder, Rootfs ─┴→ Bundle ─→ Shim::start ─→ Task (17 calls) ─→ Shim::clean_up
//!                                       ↑ answer        EventServer ←─ events
//! ```
//!
//! [`Shim`] is the bare contract, for tests and benchmarks; [`Container`] drives it through one
//! container's life and cleans up at every failure; the program `shimctl` is a command line over it.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use shim_client::*;
//!
//! let store = Store::open("/run/example".as_ref(), "default")?;
//! let events = EventServer::bind(&store.events_socket()).await?;
//! let daemon = store.daemon(Generation::V2_3, store.events_socket())?;
//! let shim = ShimBinary::resolve("io.containerd.native.v2")?;
//!
//! let folder = store.claim("one")?;
//! let spec = SpecBuilder::new("default", "one").args(&["true"]).build();
//! let bundle = Bundle::create(&store.bundles(), "one", &folder.join("work"), Some(&spec))?;
//! let rootfs = Rootfs::Host.mounts(&folder.join("rootfs"))?;
//! let creation = Creation { rootfs, ..Creation::default() };
//!
//! let container = Container::create(&daemon, &shim, bundle, creation).await?;
//! let (_pid, waiting) = container.start("").await?;
//! assert_eq!(waiting.await??.exit_status, 0);
//! container.remove().await?;
//! store.forget("one")?;
//! let topics: Vec<_> = events.received().into_iter().map(|event| event.topic).collect();
//! assert_eq!(topics, ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]);
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod answer;
mod binary;
mod bundle;
mod clock;
mod container;
mod daemon;
mod error;
mod events;
pub mod execute;
mod generation;
mod id;
mod mounts;
mod options;
mod rootfs;
mod sandbox;
mod seccomp;
mod shim;
mod shim_log;
mod spec;
mod stdio;
mod store;
mod stream;
mod task;

pub use self::answer::Answer;
pub use self::binary::ShimBinary;
pub use self::bundle::Bundle;
pub use self::clock::{age, now, rfc3339};
pub use self::container::{Container, Creation, Waiting, Whom, clean_up_dead};
pub use self::daemon::{Daemon, Limits};
pub use self::error::{CallError, Reason};
pub use self::events::{Event, EventServer, is_served};
pub use self::execute::Output;
pub use self::generation::Generation;
pub use self::id::{check_id, random_id};
pub use self::mounts::{mounts_below, unmount_below};
pub use self::options::runtime_options;
pub use self::rootfs::{Image, ImageConfig, Progress, Rootfs, resolve_user};
pub use self::sandbox::Sandbox;
pub use self::shim::Shim;
pub use self::shim_log::LogTo;
pub use self::spec::{
    BindMount, CAPABILITIES, CPU_PERIOD, ExecChange, SpecBuilder, User, exec_process,
    name_resolution,
};
pub use self::stdio::{Fifos, Shape, Sinks, Streams};
pub use self::store::{Record, Store};
pub use self::stream::{ByteStream, stream_uri};
pub use self::task::Task;
