//! Executing a shim binary for one of its short actions: `start`, `delete`, `-info`.
//!
//! Each call has a time limit. A shim that overruns it is killed, and the error says whether it
//! hung itself or left a process behind that keeps the pipe open.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use shim_protos::Any;
use shim_protos::bootstrap::{BootstrapParams, Extension, LogLevel};
use shim_protos::protobuf::{EnumOrUnknown, Message, MessageField};
use shim_protos::task::DeleteResponse;
use shim_protos::types::RuntimeInfo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::answer::Answer;
use crate::binary::ShimBinary;
use crate::bundle::Bundle;
use crate::daemon::Daemon;
use crate::generation::Generation;

/// Runs `start` and reads where the shim listens.
pub async fn start(
    daemon: &Daemon,
    binary: &ShimBinary,
    bundle: &Bundle,
    options: Option<&Any>,
) -> Result<Answer> {
    let mut command = daemon_command(daemon, binary, bundle.id());
    if daemon.debug {
        command.arg("-debug");
    }
    command.arg("start").current_dir(bundle.path());
    let input = start_input(daemon, binary, bundle.id(), options)?;
    // One pipe for both streams, as containerd has it: what a shim writes to stderr ends up in
    // its answer.
    let output = run(command, input, Streams::Together, daemon.limits.start)
        .await
        .and_then(Output::success)
        .with_context(|| {
            format!("{} start, as containerd {}", binary.path().display(), daemon.generation)
        })?;
    Answer::parse(daemon.generation, &output.stdout)
        .with_context(|| format!("answer of {} start", binary.path().display()))
}

/// Runs a shim with the flags and the environment of that daemon, and `action` with what else there
/// is behind them; `input` goes to its stdin, and none is `/dev/null`.
///
/// This is for who judges shims: nothing of the outcome is interpreted.
pub async fn raw(
    daemon: &Daemon,
    binary: &ShimBinary,
    bundle: &Bundle,
    action: &[&str],
    input: Option<Vec<u8>>,
) -> Result<Output> {
    let mut command = daemon_command(daemon, binary, bundle.id());
    command.args(action).current_dir(bundle.path());
    run(command, input, Streams::Apart, daemon.limits.start).await
}

/// Runs a shim with exactly these arguments and variables, from the root directory.
pub async fn bare(
    binary: &ShimBinary,
    arguments: &[&str],
    variables: &[(&str, &str)],
    input: Option<Vec<u8>>,
    limit: Duration,
) -> Result<Output> {
    let mut command = Command::new(binary.path());
    command.env_clear().args(arguments).envs(variables.iter().copied()).current_dir("/");
    run(command, input, Streams::Apart, limit).await
}

/// Runs `delete`, which cleans up after a shim: alive, dead or never started.
pub async fn delete(
    daemon: &Daemon,
    binary: &ShimBinary,
    bundle: &Bundle,
) -> Result<DeleteResponse> {
    let mut command = daemon_command(daemon, binary, bundle.id());
    command.arg("-bundle").arg(bundle.path());
    if daemon.debug && daemon.generation.debugs_delete() {
        command.arg("-debug");
    }
    command.arg("delete").current_dir(bundle.path());
    let output = run(command, None, Streams::Apart, daemon.limits.clean_up)
        .await
        .and_then(Output::success)
        .with_context(|| format!("{} delete", binary.path().display()))?;
    if !output.stderr.is_empty() {
        log::debug!("delete warns: {}", output.stderr_text());
    }
    DeleteResponse::parse_from_bytes(&output.stdout)
        .with_context(|| format!("answer of {} delete", binary.path().display()))
}

/// Runs `-info`: what the shim can do, without any container or daemon.
pub async fn info(
    binary: &ShimBinary,
    options: Option<&Any>,
    limit: Duration,
) -> Result<RuntimeInfo> {
    let mut command = Command::new(binary.path());
    command.arg("-info");
    let input = encode(options)?.unwrap_or_default();
    let output = run(command, Some(input), Streams::Apart, limit)
        .await
        .and_then(Output::success)
        .with_context(|| format!("{} -info", binary.path().display()))?;
    RuntimeInfo::parse_from_bytes(&output.stdout)
        .with_context(|| format!("answer of {} -info", binary.path().display()))
}

/// The flags and the environment that `start` and `delete` share.
fn daemon_command(daemon: &Daemon, binary: &ShimBinary, id: &str) -> Command {
    let mut command = Command::new(binary.path());
    command
        .arg("-namespace")
        .arg(&daemon.namespace)
        .arg("-address")
        .arg(&daemon.grpc_address)
        .arg("-publish-binary")
        .arg(&daemon.publish_binary)
        .arg("-id")
        .arg(id)
        .envs(environment(daemon))
        .process_group(0);
    command
}

fn environment(daemon: &Daemon) -> Vec<(&'static str, OsString)> {
    let mut variables = vec![
        ("TTRPC_ADDRESS", daemon.ttrpc_address.clone().into_os_string()),
        ("GOMAXPROCS", "2".into()),
    ];
    if daemon.generation.names_itself_in_the_environment() {
        variables.extend([
            // Still 2 in containerd 2.x, where version 3 comes through the answer.
            ("MAX_SHIM_VERSION", "2".into()),
            ("GRPC_ADDRESS", daemon.grpc_address.clone().into_os_string()),
            ("NAMESPACE", daemon.namespace.clone().into()),
        ]);
    }
    variables
}

/// What goes to stdin of `start`; nothing stands for `/dev/null`.
pub fn start_input(
    daemon: &Daemon,
    binary: &ShimBinary,
    id: &str,
    options: Option<&Any>,
) -> Result<Option<Vec<u8>>> {
    let file = binary.path().file_name().unwrap_or_default().to_string_lossy();
    let predates_bootstrap = file.contains("shim-runc-v1") || file.contains("shim-runhcs-v1");
    if daemon.generation < Generation::V2_3 || predates_bootstrap {
        return encode(options);
    }
    let level = if daemon.debug { LogLevel::LOG_LEVEL_DEBUG } else { LogLevel::LOG_LEVEL_INFO };
    let extension =
        |any: &Any| Extension { value: MessageField::some(any.clone()), ..Extension::default() };
    let params = BootstrapParams {
        instance_id: id.to_owned(),
        namespace: daemon.namespace.clone(),
        log_level: EnumOrUnknown::new(level),
        containerd_version: daemon.generation.version().to_owned(),
        containerd_ttrpc_address: text(&daemon.ttrpc_address)?,
        containerd_grpc_address: text(&daemon.grpc_address)?,
        containerd_binary: text(&daemon.publish_binary)?,
        extensions: options.map(extension).into_iter().collect(),
        socket_dir: daemon.socket_dir.as_deref().map(text).transpose()?,
        ..BootstrapParams::default()
    };
    Ok(Some(params.write_to_bytes().context("encode BootstrapParams")?))
}

fn encode(options: Option<&Any>) -> Result<Option<Vec<u8>>> {
    options.map(|any| any.write_to_bytes().context("encode runtime options")).transpose()
}

fn text(path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).ok_or_else(|| anyhow!("path {path:?} is not UTF-8"))
}

/// How the two output streams are collected.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Streams {
    Together,
    Apart,
}

/// What an executed shim left: its status, and what it wrote.
#[derive(Clone, Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Its stdout; for `start` its stderr, too, in the order of the writes.
    pub stdout: Vec<u8>,
    /// Its stderr, where that is read apart.
    pub stderr: Vec<u8>,
}

impl Output {
    fn success(self) -> Result<Self> {
        if self.status.success() {
            return Ok(self);
        }
        let said = format!("{}{}", String::from_utf8_lossy(&self.stdout), self.stderr_text());
        bail!("{}: {}", self.status, said.trim());
    }

    /// What it wrote to stderr, for people.
    pub fn stderr_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).trim().to_owned()
    }
}

async fn run(
    mut command: Command,
    input: Option<Vec<u8>>,
    streams: Streams,
    limit: Duration,
) -> Result<Output> {
    let (stdout, stdout_end) = pipe()?;
    let (stderr, stderr_end) = match streams {
        Streams::Together => (None, stdout_end.try_clone().context("duplicate a pipe")?),
        Streams::Apart => {
            let (reader, end) = pipe()?;
            (Some(reader), end)
        }
    };
    command
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(stdout_end)
        .stderr(stderr_end)
        .kill_on_drop(true);
    let mut child = command.spawn().context("execute")?;
    // The command holds our copies of the pipes' ends: with them open there is no end of file.
    drop(command);

    let talk = async {
        let (_, stdout, stderr) =
            tokio::join!(feed(&mut child, input), read_all(Some(stdout)), read_all(stderr));
        (stdout, stderr)
    };
    let Ok((stdout, stderr)) = timeout(limit, talk).await else {
        bail!("{}", overrun(child, limit).await);
    };
    let status = match timeout(limit, child.wait()).await {
        Ok(status) => status.context("wait")?,
        Err(_) => bail!("closed its output but has not ended after {limit:?}"),
    };
    Ok(Output { status, stdout: stdout?, stderr: stderr? })
}

fn pipe() -> Result<(pipe::Receiver, OwnedFd)> {
    let (reader, writer) = std::io::pipe().context("create a pipe")?;
    let reader = pipe::Receiver::from_owned_fd(reader.into()).context("watch a pipe")?;
    Ok((reader, writer.into()))
}

async fn feed(child: &mut Child, input: Option<Vec<u8>>) {
    if let (Some(mut stdin), Some(bytes)) = (child.stdin.take(), input) {
        // A shim may well end without reading its stdin.
        let _ = stdin.write_all(&bytes).await;
    }
}

async fn read_all(reader: Option<pipe::Receiver>) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(mut reader) = reader {
        reader.read_to_end(&mut bytes).await.context("read its output")?;
    }
    Ok(bytes)
}

async fn overrun(mut child: Child, limit: Duration) -> String {
    match child.try_wait() {
        Ok(Some(status)) => format!(
            "ended ({status}) but something it started still holds its stdout or stderr after \
             {limit:?}; a shim's daemon must give up both"
        ),
        _ => {
            let _ = child.kill().await;
            format!("killed: not done after {limit:?}")
        }
    }
}

#[cfg(test)]
mod tests;
