//! The short actions: the sound shim does them, and the fault shows in what is printed.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output, Stdio};
use std::{env, thread};

use anyhow::{Context, Result, ensure};
use shim_protos::bootstrap::{BootstrapParams, BootstrapResult};
use shim_protos::protobuf::Message;

use crate::Setting;
use crate::faults::{Fault, decode, encode};

/// Starts the sound shim, puts a process of ours in front of it, and prints where that listens.
pub(crate) fn start(setting: &Setting, arguments: &[String]) -> Result<ExitCode> {
    let events = env::var("TTRPC_ADDRESS").unwrap_or_default();
    let own_events = setting.socket("e", Path::new(flag(arguments, "-id").unwrap_or("none")));
    let input = redirected(read_stdin()?, &own_events)?;
    let mut command = Command::new(&setting.shim);
    command.args(arguments).env("TTRPC_ADDRESS", &own_events);
    let started = run(command, &input)?;
    if !started.status.success() {
        return relay(&started);
    }
    let address = address_of(&started.stdout)?;
    let shim = PathBuf::from(address.trim_start_matches("unix://"));
    let own = setting.socket("t", &shim);
    if UnixStream::connect(&own).is_err() {
        serve([&shim, &own, &PathBuf::from(events), &own_events])?;
    }
    let answer = readdressed(&started.stdout, &address, &format!("unix://{}", own.display()))?;
    let mut stdout = io::stdout().lock();
    if setting.fault == Fault::Chatter {
        stdout.write_all(b"level=info msg=starting\n")?;
    }
    stdout.write_all(&answer)?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn delete(setting: &Setting, arguments: &[String]) -> Result<ExitCode> {
    if setting.fault == Fault::LazyDelete {
        return Ok(ExitCode::SUCCESS);
    }
    pass_on(setting, arguments)
}

/// Lets the sound shim do it.
pub(crate) fn pass_on(setting: &Setting, arguments: &[String]) -> Result<ExitCode> {
    let mut command = Command::new(&setting.shim);
    command.args(arguments);
    let done = run(command, &read_stdin()?)?;
    let is_info = arguments.iter().any(|argument| argument == "-info");
    if is_info && setting.fault == Fault::ChattyInfo {
        io::stdout().write_all(b"level=info msg=informing\n")?;
    }
    relay(&done)
}

fn relay(done: &Output) -> Result<ExitCode> {
    io::stdout().write_all(&done.stdout)?;
    io::stderr().write_all(&done.stderr)?;
    Ok(if done.status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn read_stdin() -> Result<Vec<u8>> {
    let stdin = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut bytes = Vec::new();
    if !stdin.metadata()?.file_type().is_char_device() {
        (&stdin).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

fn run(mut command: Command, input: &[u8]) -> Result<Output> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("execute the sound shim")?;
    let mut stdin = child.stdin.take().context("its stdin")?;
    let input = input.to_vec();
    // It may well end without reading.
    let feeder = thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output()?;
    drop(feeder.join());
    Ok(output)
}

/// What containerd 2.3 sends names the events' address a second time.
fn redirected(input: Vec<u8>, events: &Path) -> Result<Vec<u8>> {
    match decode::<BootstrapParams>(&input) {
        Ok(mut params) if !params.containerd_ttrpc_address.is_empty() => {
            params.containerd_ttrpc_address = events.display().to_string();
            encode(&params)
        }
        _ => Ok(input),
    }
}

fn address_of(answer: &[u8]) -> Result<String> {
    if let Ok(result) = BootstrapResult::parse_from_bytes(answer)
        && result.version > 0
    {
        return Ok(result.address);
    }
    let text = std::str::from_utf8(answer).context("an answer")?.trim();
    let at = text.find("unix://").context("no unix:// address in the answer")?;
    Ok(text[at..].split(['"', '\n']).next().unwrap_or_default().to_owned())
}

fn readdressed(answer: &[u8], old: &str, new: &str) -> Result<Vec<u8>> {
    if let Ok(mut result) = BootstrapResult::parse_from_bytes(answer)
        && result.version > 0
    {
        new.clone_into(&mut result.address);
        return encode(&result);
    }
    Ok(std::str::from_utf8(answer)?.replace(old, new).into_bytes())
}

/// Starts the process in front of the sound shim, and waits until it listens.
fn serve(sockets: [&PathBuf; 4]) -> Result<()> {
    let mut command = Command::new(env::current_exe()?);
    command.arg("serve").args(sockets).process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().context("execute ourselves")?;
    let mut ready = String::new();
    child.stdout.take().context("its stdout")?.read_to_string(&mut ready)?;
    ensure!(ready == "ready", "the process in front of the shim did not start");
    Ok(())
}

fn flag<'a>(arguments: &'a [String], name: &str) -> Option<&'a str> {
    let at = arguments.iter().position(|argument| argument == name)?;
    arguments.get(at + 1).map(String::as_str)
}
