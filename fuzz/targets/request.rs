//! One call of the task service: a method, and a payload.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| shim_core::fuzzing::request(bytes));
