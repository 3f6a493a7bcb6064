//! Doors for fuzzers: each takes any bytes, and must neither panic nor hang.
//!
//! The targets are in `fuzz/`; what they found, and what they start from, is replayed by the tests
//! here.

use oci_spec::runtime::LinuxSeccomp;
use shim_core::model::Bundle;

use crate::{
    engine::{cgroup, plan, seccomp},
    external, spec,
};

/// Plans these bytes as a `config.json`; a plan is as every plan has to be.
pub fn spec(bytes: &[u8]) {
    let bundle = Bundle::new("/bundle").expect("an absolute path");
    if let Ok(spec) = spec::parse(&bundle, bytes) {
        // What makes no sense is refused, and that is fine.
        let _refused = plan::check_all(&spec);
    }
}

/// Compiles these bytes as a seccomp profile, and runs the filter for calls of every kind.
pub fn profile(bytes: &[u8]) {
    if let Ok(profile) = serde_json::from_slice::<LinuxSeccomp>(bytes) {
        seccomp::check_profile(&profile);
    }
}

/// Reads these bytes as each file that a cgroup's counters are in.
pub fn counters(bytes: &[u8]) {
    cgroup::read_counters(&String::from_utf8_lossy(bytes));
}

/// Reads these bytes as the log of a runtime that has failed.
pub fn log(bytes: &[u8]) {
    external::read_log(&String::from_utf8_lossy(bytes));
}

#[cfg(test)]
mod tests {
    use super::{super::replay::replay, *};

    #[test]
    fn specs_take_anything() {
        replay("spec", spec);
    }

    #[test]
    fn profiles_take_anything() {
        replay("profile", profile);
    }

    #[test]
    fn counters_take_anything() {
        replay("counters", counters);
    }

    #[test]
    fn logs_take_anything() {
        replay("log", log);
    }
}
