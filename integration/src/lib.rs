//! Runs shims under real, unmodified containerds and judges what they leave behind.
//!
//! A test run is cut into *lanes*, one a containerd version. Each lane has its own mount and PID
//! namespace with a fresh `/run` ([`isolation`]), so every process, mount and file that it sees is
//! its own, and the end of the lane is the end of them all. Cgroups have no such wall: theirs
//! carry the lane's mark in their path.
//!
//! - [`debs`] fetches containerd, runc and busybox from Debian's archive, once.
//! - [`image`] makes an image from busybox; [`spec`] makes `config.json` where `ctr` lacks a flag.
//! - [`daemon`] is a private containerd, [`ctr`] and [`client`] talk to it, [`shim`] is under test.
//! - [`cri`] makes pods through containerd, as kubelet does.
//! - [`leaks`] compares the machine before and after a test, [`runner`] runs the tests.
//! - [`lane`] is what a test gets to work with.
//! - [`faults`] and [`soak`] need no containerd, they play it: the one breaks what it can, the other
//!   does the same thing ten thousand times. [`budgets`] holds the shim to what it may cost.
//! - [`guest`] is a virtual machine with systemd and cgroup v2, in which some of the tests run.
//! - [`sandbox`] has what boots a machine of the sandbox shim.
//! - [`through`] times lives under containerd, beside the shims that [`registry`] and Debian have.
//!
//! ```text
//! cargo test -p integration --test it [-- [NAME…] [--exact] [--skip NAME] [--test-threads N] [--list]]
//! ```
//! As root, and `--test cri` for pods; `N` is how many lanes run at once. The environment has the rest:
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `SHIM_RUNTIME` | the runtime's name; `io.containerd.runc.v2` judges containerd's own shim | `io.containerd.native.v2`, built first |
//! | `SHIM_SANDBOXER` | who keeps that runtime's pods for `--test cri`: `podsandbox` or `shim` | `podsandbox` |
//! | `SHIM_DIR` | the folder of its binary | where cargo builds; for containerd's own, containerd's |
//! | `SHIM_ENGINES` | the folder of fetched packages | `engines` in cargo's target folder |
//! | `SHIM_PATIENCE` | a factor for time limits | 1 |
#![forbid(unsafe_code)]

pub mod budgets;
pub mod cgroups;
pub mod client;
pub mod container;
pub mod cri;
pub mod ctr;
pub mod daemon;
pub mod debs;
pub mod engine;
pub mod events;
pub mod faults;
pub mod folder;
pub mod grpc;
pub mod guest;
pub mod image;
pub mod isolation;
pub mod lane;
pub mod leaks;
pub mod messages;
pub mod mounts;
pub mod procs;
pub mod registry;
pub mod runner;
pub mod sandbox;
pub mod session;
pub mod shim;
pub mod soak;
pub mod spec;
pub mod target;
pub mod through;
pub mod wait;
