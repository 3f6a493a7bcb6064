//! What a shim may cost, in things that do not depend on the machine: `docs/budgets.md`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    integration::budgets::run::main()
}
