//! Running one command of a runtime to its end, and making an error of its failure.

use std::{
    fs::{self, File},
    io::{Read, Seek, Write},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use shim_core::{
    Context, Error, Kind, Result, Streams,
    linux::{Program, Reaper, given_files, spawn_program},
    model::{Bundle, ExitStatus},
};

use super::{
    cli::{self, Line},
    failure,
    runtime::Runtime,
};
use crate::{
    engine::hooks::{memory, printed},
    programs::{Unwanted, c_string, ending, environment},
};

/// More than any document that a runtime prints, in bytes.
const LONGEST: u64 = 1 << 20;

/// A runtime, as one container calls it.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) runtime: Runtime,
    pub(super) reaper: Reaper,
    /// Where commands run and log.
    pub(super) bundle: PathBuf,
}

/// What a command has as its streams.
#[derive(Debug)]
pub(super) enum Io {
    /// No input; what it prints is kept.
    Kept,
    /// This input; what it prints is kept.
    Input(Vec<u8>),
    /// The container's own, which the runtime passes on.
    Passed(Streams),
}

/// A file of a bundle that goes with its owner.
#[derive(Debug)]
pub(super) struct Scratch(pub(super) PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // One that was never made, or that goes with its bundle.
        let _ = fs::remove_file(&self.0);
    }
}

impl Caller {
    pub(super) fn new(runtime: Runtime, reaper: Reaper, bundle: &Bundle) -> Self {
        Self { runtime, reaper, bundle: bundle.path().to_owned() }
    }

    /// Runs a command to its end, and returns what it has printed where that is kept.
    ///
    /// # Errors
    /// What the runtime has logged last, else what it has printed, else how it ended.
    pub(super) async fn call(&self, line: Line, io: Io) -> Result<String> {
        let scratch = Scratch(self.bundle.join(format!("runtime-{}.log", number())));
        let verb = line.first().map(|verb| verb.to_string_lossy().into_owned()).unwrap_or_default();
        let mut arguments = cli::global(&self.runtime, &scratch.0);
        arguments.extend(line);
        let called = run(&self.runtime, &self.reaper, arguments, &self.bundle, io).await;
        let (status, output, errors) = called.with_context(|| self.runtime.name())?;
        if status == ExitStatus::Code(0) {
            return Ok(output.map_or_else(String::new, text));
        }
        let printed = errors.map(printed).unwrap_or_default();
        let err = match failure::last_error(&scratch.0) {
            Some(message) => Error::new(failure::kind(&message), message),
            None if failure::is_usage(&printed) => {
                Error::new(Kind::Unsupported, format!("it has no command {verb:?}"))
            }
            None => Error::other(ending(status) + &printed),
        };
        Err(err.context(self.runtime.name()))
    }
}

/// Asks a runtime for something that has to do with no container.
///
/// # Errors
/// How it ended.
pub(super) async fn ask(runtime: &Runtime, reaper: &Reaper, line: Line) -> Result<String> {
    match run(runtime, reaper, line, Path::new("/"), Io::Kept).await? {
        (ExitStatus::Code(0), output, _) => Ok(output.map_or_else(String::new, text)),
        (status, ..) => Err(Error::other(ending(status))),
    }
}

type Ran = (ExitStatus, Option<OwnedFd>, Option<OwnedFd>);

async fn run(
    runtime: &Runtime,
    reaper: &Reaper,
    arguments: Line,
    directory: &Path,
    io: Io,
) -> Result<Ran> {
    let (streams, output, errors) = streams(io).context("make a command's streams")?;
    let name = [runtime.binary.clone().into_os_string()];
    let arguments = name.into_iter().chain(arguments);
    let program = Program {
        path: c_string(runtime.binary.as_os_str())?,
        arguments: arguments.map(|word| c_string(&word)).collect::<Result<_>>()?,
        environment: environment(),
        directory: c_string(directory.as_os_str())?,
        streams,
        terminal: false,
        // What it is about is undone by whoever finds the shim dead.
        dies_with_us: true,
        files: given_files(),
    };
    let (pid, exit, gate) = spawn_program(reaper, &program)?;
    // A copy of ours would keep the container's streams open.
    drop(program);
    // Behind the exit, so that it goes first: until then the number is the command's.
    let unwanted = Unwanted::new(pid);
    let opened = gate.open().await;
    let exit = exit.await;
    unwanted.has_ended();
    opened.map(|()| (exit.status, output, errors))
}

fn streams(io: Io) -> Result<(Vec<OwnedFd>, Option<OwnedFd>, Option<OwnedFd>)> {
    let input = match io {
        Io::Passed(Streams::Pipes { stdin, stdout, stderr }) => {
            return Ok((vec![stdin, stdout, stderr], None, None));
        }
        Io::Input(bytes) => {
            let mut file = File::from(memory(c"input")?);
            file.write_all(&bytes)?;
            file.rewind()?;
            file.into()
        }
        Io::Kept | Io::Passed(Streams::Terminal) => File::open("/dev/null")?.into(),
    };
    let (output, errors) = (memory(c"output")?, memory(c"errors")?);
    let given = vec![input, output.try_clone()?, errors.try_clone()?];
    Ok((given, Some(output), Some(errors)))
}

fn text(file: OwnedFd) -> String {
    let mut file = File::from(file);
    let mut bytes = Vec::new();
    // What can't be read is missed by whoever wants it.
    let _ = file.rewind().and_then(|()| file.take(LONGEST).read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Tells the files of commands apart that run at once.
fn number() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
