//! The host's half: a shim whose containers run in a guest.

pub mod files;
pub mod share;
pub mod size;
pub mod spec;
