//! Pods in virtual machines: a guest with a kernel of its own, and in it the engine that makes containers
//! on the host.
//!
//! One program is both halves. On the host it is a shim: it boots the guest, shares root filesystems and
//! volumes with it, and has each container of the pod made there. In the guest it is the first process:
//! shim-core's task service over shim-runc's engine. Between them is one line, on which `channel` lays as
//! many streams as are needed.

mod build;
pub mod channel;
mod chosen;
pub mod config;
pub mod confine;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod guest;
pub mod gvisor;
pub mod host;
pub mod image;
pub mod journal;
pub mod net;
mod pump;
#[cfg(test)]
#[path = "../../shim-core/src/fuzzing/replay.rs"]
mod replay;
mod started;
pub mod vm;

pub use build::Build;

use std::{
    env,
    ffi::OsString,
    io::{self, Write},
    process::ExitCode,
};

use shim_core::Result;
use shim_runc::NativeBackend;

/// The whole of `main`.
pub fn main() -> ExitCode {
    // First of all: it is here that a process of the engine's own goes its way.
    let engine = NativeBackend::new();
    let arguments: Vec<_> = env::args_os().collect();
    let name = arguments.first().map(|name| name.to_string_lossy()).unwrap_or_default();
    if guest::init::is_first(&name) {
        guest::init::run(&name, engine);
    }
    let (word, rest) = match arguments.get(1..).and_then(<[OsString]>::split_first) {
        Some((word, rest)) => (&*word.to_string_lossy(), rest),
        None => ("", &[][..]),
    };
    match word {
        guest::SUBCOMMAND => guest::run_as_process(engine),
        confine::COMMAND => told(confine::command(rest).map(|()| String::new())),
        "image" => told(image::command(rest)),
        "check" => told(host::check()),
        // What is no word of ours is containerd's.
        _ => shim_core::run_sandbox(chosen::Chosen::default()),
    }
}

/// Says what there is to say, and how it went.
fn told(done: Result<String>) -> ExitCode {
    // Nobody is left to tell when the streams are gone.
    match done {
        Ok(text) => {
            let _unheard = io::stdout().lock().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(err) => {
            let _unheard = writeln!(io::stderr().lock(), "{err:#}");
            ExitCode::FAILURE
        }
    }
}
