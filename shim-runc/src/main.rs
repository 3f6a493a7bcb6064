//! `containerd-shim-native-v2`: a shim that makes containers itself.

use std::process::ExitCode;

fn main() -> ExitCode {
    shim_core::run(shim_runc::NativeBackend::new())
}
