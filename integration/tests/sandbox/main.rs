//! Machines of the sandbox shim, on QEMU without KVM: that they start, end, and can do nothing else.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking")]

mod boot;
mod posture;
mod support;
