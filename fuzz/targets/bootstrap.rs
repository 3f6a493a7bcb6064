//! What containerd writes to stdin of `start`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| shim_core::fuzzing::bootstrap(bytes));
