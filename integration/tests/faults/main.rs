//! Faults at every step of a container's life; `cargo xtask faults` plays more rounds of them.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use integration::faults::run::{self, Extra};
use integration::soak;

fn main() -> ExitCode {
    run::main(&[Extra { name: "soak::smoke", run: soak::smoke }])
}
