//! What the other half of a sandbox says on the line.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| shim_sandbox::fuzzing::channel(bytes));
