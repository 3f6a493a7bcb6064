//! Pods, made through containerd's CRI plugin as kubelet makes them.
//!
//! - [`config`] is what containerd is told: which runtimes make pods, and who keeps their sandboxes.
//! - [`network`] gives a lane a network of its own, and its pods addresses in it.
//! - [`client`] speaks CRI; [`pod`] and [`container`] are what it made; [`log`] is what they wrote.
//! - [`stage`] is what a test of pods gets to work with.

pub mod client;
pub mod config;
pub mod container;
pub mod log;
pub mod network;
pub mod pod;
pub mod stage;
