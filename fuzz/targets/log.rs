//! The log of another runtime.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| shim_runc::fuzzing::log(bytes));
