//! The wire: decodes a request, calls, encodes the answer. It decides nothing.

pub(crate) mod convert;
mod stats;
mod task;

pub(crate) use task::services;
