//! The command line that containerd gives.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| shim_core::fuzzing::flags(bytes));
