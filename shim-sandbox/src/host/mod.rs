//! The half on the host: a shim whose containers run in a guest.

pub mod agent;
mod answer;
mod backend;
pub mod boot;
mod check;
pub mod container;
pub mod files;
mod kills;
mod machine;
mod member;
pub mod pod;
mod process;
mod pump;
pub mod share;
pub mod size;
pub mod spec;

pub use backend::MicroVm;
pub(crate) use backend::{describe, parent, refuse_the_hosts};
pub use check::check;
