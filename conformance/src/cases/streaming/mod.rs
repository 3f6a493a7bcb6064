//! Streams of a process that clients open at the shim's socket, as CRI does from containerd 2.0 on.

mod clients;
mod flow;
mod hostile;
mod life;

use std::rc::Rc;

use anyhow::Result;
use shim_client::{ByteStream, CallError, stream_uri};
use shim_protos::task::CreateTaskRequest;
use tokio::time::timeout;
use ttrpc::Code;

use crate::case::Case;
use crate::expect::skip;
use crate::lab::{Ask, Guest, Lab, SLEEP, SOON};

pub(super) fn cases() -> Vec<Case> {
    [life::cases(), flow::cases(), clients::cases(), hostile::cases()].concat()
}

/// A shim without a container yet; one that serves no streams skips the case.
async fn serving(lab: &Lab, ask: Ask) -> Result<Rc<Guest>> {
    let guest = lab.prepare(ask).await?;
    match open(&guest, "a-test").await {
        Err(error) if is_absent(&error) => skip("the shim serves no streams"),
        Err(error) => Err(error.into()),
        Ok(_) => Ok(guest),
    }
}

/// A container that runs, with an open stream for its stdin and one for its stdout.
async fn piped(lab: &Lab, ask: Ask) -> Result<(Rc<Guest>, ByteStream, ByteStream)> {
    let guest = serving(lab, ask).await?;
    let (stdin, stdout) = (open(&guest, "c-in").await?, open(&guest, "c-out").await?);
    create(&guest, |request| {
        request.stdin = uri(&guest, "c-in");
        request.stdout = uri(&guest, "c-out");
    })
    .await?;
    guest.start("").await?;
    Ok((guest, stdin, stdout))
}

/// A container that runs, with its own streams at `/dev/null`, in a shim that serves streams.
async fn running(lab: &Lab) -> Result<Rc<Guest>> {
    let guest = serving(lab, Ask::new(&SLEEP)).await?;
    guest.create().await?;
    guest.start("").await?;
    Ok(guest)
}

fn is_absent(error: &CallError) -> bool {
    let codes = [Code::UNIMPLEMENTED, Code::INVALID_ARGUMENT, Code::NOT_FOUND];
    error.code().is_some_and(|code| codes.contains(&code))
}

async fn open(guest: &Guest, id: &str) -> Result<ByteStream, CallError> {
    ByteStream::open(&guest.shim.answer.address, id).await
}

/// A stream as a request has it.
fn uri(guest: &Guest, id: &str) -> String {
    stream_uri(&guest.shim.answer.address, id)
}

/// Create and Start of a container with that stdout.
async fn run(guest: &Guest, stdout: &str) -> Result<()> {
    create(guest, |request| request.stdout = uri(guest, stdout)).await?;
    guest.start("").await?;
    Ok(())
}

/// Create of a container with streams.
async fn create(guest: &Guest, change: impl FnOnce(&mut CreateTaskRequest)) -> Result<()> {
    match guest.create_with(change).await {
        Err(error) if error.code() == Some(Code::UNIMPLEMENTED) => {
            skip("the shim takes no streams")
        }
        answer => {
            answer?;
            Ok(())
        }
    }
}

/// Reads an output to its end.
async fn read_all(stream: &mut ByteStream) -> Result<String> {
    let mut all = Vec::new();
    while let Some(bytes) = timeout(SOON, stream.read()).await?? {
        all.extend_from_slice(&bytes);
    }
    Ok(String::from_utf8_lossy(&all).into_owned())
}

/// Reads an output until it has that text.
async fn read_until(stream: &mut ByteStream, text: &str) -> Result<String> {
    let mut all = String::new();
    while !all.contains(text) {
        match timeout(SOON, stream.read()).await {
            Ok(Ok(Some(bytes))) => all.push_str(&String::from_utf8_lossy(&bytes)),
            Ok(Ok(None)) => anyhow::bail!("the stream ended after {all:?}, before {text:?}"),
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => anyhow::bail!("expected {text:?}, got {all:?}"),
        }
    }
    Ok(all)
}
