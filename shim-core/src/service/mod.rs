//! The wire: decodes a request, calls, encodes the answer. It decides nothing.

pub(crate) mod convert;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod sandbox;
mod server;
pub(crate) mod stats;
mod streaming;
mod task;
mod trace;

pub(crate) use sandbox::sandbox_service;
pub(crate) use server::{HEAD, Server, request_frame};
pub(crate) use streaming::Streaming;
pub(crate) use task::{ANNOUNCES, V2, services};
pub(crate) use trace::traced;
