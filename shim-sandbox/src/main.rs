//! `containerd-shim-sandbox-v2`: on the host a shim, in the guest the first process.

use std::process::ExitCode;

fn main() -> ExitCode {
    shim_sandbox::main()
}
