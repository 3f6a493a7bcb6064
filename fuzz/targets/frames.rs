//! What a client writes to the socket.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| shim_core::fuzzing::frames(bytes));
