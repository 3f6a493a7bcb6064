//! A file of a cgroup.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| shim_runc::fuzzing::counters(bytes));
