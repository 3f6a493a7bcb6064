//! Faults at every step of a container's life; `cargo xtask faults` plays more rounds of them.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use integration::faults::many;
use integration::faults::run::{self, Extra};
use integration::soak;

fn main() -> ExitCode {
    let smoke = Extra { name: "soak::smoke", run: soak::smoke };
    run::main(&[&[smoke], many::EXTRAS.as_slice()].concat())
}
