//! Pods in gVisor: a kernel in a process of the host's, and `runsc` to drive it.
//!
//! ```text
//! CreateSandbox ─▶ a bundle with a program that sleeps, the pod's files
//! StartSandbox  ─▶ runsc create, start: the pod's process    ◀── netns of CNI, whose addresses it takes
//! Create        ─▶ runsc create of a bundle of ours over containerd's, in that process
//! ```
//! runsc is driven as shim-runc drives any runtime, which knows of containers in the process of another.
//! Without the Sandbox API a container is the pod by its annotations, and runsc itself sees to that.

mod backend;
mod bundle;
mod pause;
mod pod;

pub use backend::Gvisor;
