//! The messages of `proto/*.proto`, a module a file.

#[allow(
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::cast_possible_truncation,
    clippy::use_self,
    missing_debug_implementations,
    missing_docs,
    unreachable_pub,
    reason = "written by a generator"
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/mod.rs"));
}

pub use self::generated::{client, cri};
