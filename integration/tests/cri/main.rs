//! Pods under real containerds, made as kubelet makes them: every test runs with each of them, for each
//! runtime.
//!
//! ```text
//! cargo test -p integration --test cri [-- [NAME…] [--exact] [--skip NAME] [--test-threads N] [--list]]
//! ```
#![forbid(unsafe_code)]

mod life;
mod output;
mod resources;
mod restart;
mod view;

use std::process::ExitCode;

use integration::cri::config::{Runtime, Sandboxer};

fn main() -> ExitCode {
    let tested = Runtime { handler: "tested", shim: None, sandboxer: Sandboxer::under_test() };
    integration::runner::main_of_pods(
        &[life::TESTS, view::TESTS, output::TESTS, resources::TESTS, restart::TESTS],
        vec![tested].leak(),
    )
}
