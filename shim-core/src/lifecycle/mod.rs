//! The rules: what may happen to a task when, and what is told to whom in which order.

mod ahead;
mod cell;
mod console;
mod exec;
mod sandbox;
mod shim;
mod state;
mod task;

pub(crate) use sandbox::{CreatePod, Pod, Pods};
pub(crate) use shim::{CreateTask, Shim};
pub(crate) use state::Phase;
pub(crate) use task::{Deleted, ProcessState, Task};

#[cfg(test)]
pub(crate) mod tests;
