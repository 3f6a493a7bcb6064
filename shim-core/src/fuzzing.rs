//! Doors for fuzzers: each takes any bytes, and must neither panic nor hang.
//!
//! The targets are in `fuzz/`; what they found, and what they start from, is replayed by the tests
//! here.

pub use crate::{
    entry::fuzzing::{bootstrap, flags},
    service::fuzzing::{frames, request},
};

#[cfg(test)]
mod replay;

#[cfg(test)]
mod tests {
    use super::{replay::replay, *};

    #[test]
    fn flags_take_anything() {
        replay("flags", flags);
    }

    #[test]
    fn bootstrap_takes_anything() {
        replay("bootstrap", bootstrap);
    }

    #[test]
    fn frames_take_anything() {
        replay("frames", frames);
    }

    #[test]
    fn requests_take_anything() {
        replay("request", request);
    }
}
