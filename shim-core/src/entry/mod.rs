//! A shim process from exec to exit: which mode containerd wants, and what it prints.
//!
//! containerd reads stdout and stderr of `start` as one stream: nothing but the answer may go there,
//! and a failure is one line on stderr and exit status 1.

mod accept;
mod bootstrap;
mod delete;
mod embed;
mod flags;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod kind;
mod probe;
mod serve;
mod socket;
mod start;

use std::{
    env,
    io::{self, Write},
    process::ExitCode,
};

pub use self::embed::TaskServer;
use self::{
    flags::{Action, Flags},
    kind::Kind,
    start::Started,
};
use crate::{
    backend::{Backend, SandboxBackend},
    error::{Context, Error, Result},
    linux::mount,
};

/// Runs a shim around a backend: the whole of a shim's `main`.
///
/// What it does follows from the arguments that containerd gives: serve containers, start such a
/// process, clean up after one, or tell its version.
pub fn run(backend: impl Backend) -> ExitCode {
    end(act(backend, kind::Containers))
}

/// Runs a shim around a backend whose containers share a sandbox: [`run`], and the sandbox service beside
/// the task service. There is one such shim a pod, whatever is said about grouping.
pub fn run_sandbox(backend: impl SandboxBackend) -> ExitCode {
    end(act(backend, kind::Sandboxed))
}

fn end(answer: Result<Vec<u8>>) -> ExitCode {
    match answer {
        Ok(answer) => match print(&answer) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Err(err) => {
            complain(&format!("{err:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Returns what goes to stdout.
fn act<B: Backend>(backend: B, kind: impl Kind<B>) -> Result<Vec<u8>> {
    let arguments: Vec<_> = env::args_os().collect();
    let flags = Flags::parse(&arguments)?;
    match flags.action {
        Action::Version => Ok(version(&backend)),
        Action::About => about(&backend),
        Action::Start => match start::start(&backend, &flags, &kind)? {
            Started::Starter(answer) => Ok(answer),
            Started::Shim(legacy) => {
                serve::serve(backend, &flags, legacy, kind).map(|()| Vec::new())
            }
        },
        Action::Delete => delete::delete(&backend, &flags),
        Action::None => Err(Error::invalid("what to do is missing: start or delete")),
    }
}

/// containerd asks with the options of the runtime on stdin, where there are any.
fn about(backend: &impl Backend) -> Result<Vec<u8>> {
    let mut about = backend.about();
    if let Some(options) = bootstrap::options_of(&start::read_stdin()?) {
        about.features = backend.features(&options);
    }
    bootstrap::runtime_info(&about, mount::taken())
}

fn version(backend: &impl Backend) -> Vec<u8> {
    let about = backend.about();
    format!("{}:\n  Version:  {}\n", about.name, about.version).into_bytes()
}

fn print(answer: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(answer)?;
    stdout.flush()
}

fn complain(text: &str) {
    // Nobody is left to tell when stderr is gone.
    let _unheard = writeln!(io::stderr().lock(), "{text}");
}

/// Reads one of containerd's environment variables; an empty one is none.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// Reads a small file of the kernel's.
fn read_text(path: &str) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("read {path}"))
}
