//! The three streams of a process: every byte arrives, and nobody can block the shim by them.

mod files;
mod flow;
mod loggers;
mod readers;
mod stdin;
mod streams;

use anyhow::Result;
use shim_client::{Fifos, Shape, Sinks, Streams};

use crate::case::Case;
use crate::lab::{Captured, Io, Lab};

pub(super) fn cases() -> Vec<Case> {
    [
        streams::cases(),
        readers::cases(),
        flow::cases(),
        stdin::cases(),
        files::cases(),
        loggers::cases(),
    ]
    .concat()
}

/// Fifos that nobody reads yet.
fn fifos(lab: &Lab) -> Result<Fifos> {
    Fifos::create(&lab.folder.join(lab.name("fifos")), Shape::Pipes)
}

/// What of them goes into a request.
fn uris(fifos: &Fifos) -> Io {
    Io::Uris(fifos.stdin(), fifos.stdout(), fifos.stderr())
}

/// Reads them, from now on and until that is dropped.
fn read(fifos: &Fifos) -> Result<(Captured, Captured, Streams)> {
    let (stdout, stderr) = (Captured::default(), Captured::default());
    let sinks = Sinks { stdout: Box::new(stdout.clone()), stderr: Box::new(stderr.clone()) };
    let streams = Streams::open(fifos, sinks)?;
    Ok((stdout, stderr, streams))
}
