//! The questions: each a word, a colon and a path, a name or a number.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    process::ExitCode,
};

use rustix::{
    fs as calls,
    process::{self, Pid, Signal},
    thread::{self, UnshareFlags},
};
use serde_json::{Value, json};

use crate::{files, told};

/// What comes of a question.
pub(crate) enum Answer {
    Told(Value),
    /// Something to do when everything is told.
    End(End),
}

/// How the probe ends.
pub(crate) enum End {
    Exit(u8),
    Signal(i32),
    /// It stays until it is killed, or until its standard input ends.
    Stay,
}

impl End {
    pub(crate) fn reach(self) -> ExitCode {
        match self {
            Self::Exit(code) => return ExitCode::from(code),
            Self::Signal(number) => {
                // Not as PID 1, which the kernel protects from itself.
                if let Some(signal) = Signal::from_named_raw(number) {
                    let _ = process::kill_process(process::getpid(), signal);
                }
            }
            Self::Stay => loop {
                std::thread::park();
            },
        }
        ExitCode::SUCCESS
    }
}

/// Answers one question.
pub(crate) fn ask(question: &str) -> Answer {
    let (verb, rest) = question.split_once(':').unwrap_or((question, ""));
    let path = Path::new(rest);
    Answer::Told(match verb {
        "exit" => return Answer::End(End::Exit(rest.parse().unwrap_or(u8::MAX))),
        "signal" => return Answer::End(End::Signal(rest.parse().unwrap_or(9))),
        "stay" => return Answer::End(End::Stay),
        "open" => told(open(path)),
        "write" => told(opened(OpenOptions::new().write(true), path)),
        "create" => told(opened(OpenOptions::new().write(true).create_new(true), path)),
        "put" => told(put(rest)),
        "mkdir" => told(fs::create_dir(path).map(|()| "made")),
        "remove" => told(fs::remove_file(path).map(|()| "removed")),
        "read" => told(read(path)),
        "list" => told(list(path)),
        "look" => told(files::look(path, false)),
        "follow" => told(files::look(path, true)),
        "tree" => files::tree(rest),
        "xattr" => told(xattr(path)),
        "node" => told(node(rest)),
        "run" => told(run(rest)),
        "call" => told(call(rest)),
        _ => json!("what?"),
    })
}

/// Reads a byte, or lists a directory: what is masked lets itself be opened.
fn open(path: &Path) -> io::Result<String> {
    if fs::metadata(path)?.is_dir() {
        let some = fs::read_dir(path)?.next().is_some();
        return Ok(if some { "directory with entries" } else { "empty directory" }.to_owned());
    }
    // A fifo or a device may never answer.
    let mut file = OpenOptions::new().read(true).custom_flags(NONBLOCK).open(path)?;
    let count = file.read(&mut [0])?;
    Ok(if count == 0 { "empty" } else { "has bytes" }.to_owned())
}

const NONBLOCK: i32 = calls::OFlags::NONBLOCK.bits().cast_signed();

fn opened(options: &mut OpenOptions, path: &Path) -> io::Result<&'static str> {
    options.custom_flags(NONBLOCK).open(path).map(|_| "opened")
}

/// `PATH=TEXT`: writes.
fn put(rest: &str) -> io::Result<&'static str> {
    let (path, text) = rest.split_once('=').unwrap_or((rest, ""));
    fs::write(path, text).map(|()| "written")
}

fn read(path: &Path) -> io::Result<String> {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).trim_end().to_owned())
}

fn list(path: &Path) -> io::Result<Vec<String>> {
    let names = fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.file_name()));
    let names = names.map(|name| name.map(|name| name.to_string_lossy().into_owned()));
    let mut names: Vec<String> = names.collect::<io::Result<_>>()?;
    names.sort();
    Ok(names)
}

/// Whether user attributes stay; a filesystem may know none.
fn xattr(path: &Path) -> io::Result<usize> {
    Ok(calls::getxattr(path, "user.probe", &mut [0_u8; 64])?)
}

/// `PATH=c:1:3`: makes a device and opens it, which the cgroup may forbid each by itself.
fn node(rest: &str) -> io::Result<String> {
    let wrong = || io::Error::from(io::ErrorKind::InvalidInput);
    let (path, device) = rest.split_once('=').ok_or_else(wrong)?;
    let mut parts = device.split(':');
    let kind = match parts.next() {
        Some("b") => calls::FileType::BlockDevice,
        _ => calls::FileType::CharacterDevice,
    };
    let mut number = || parts.next().and_then(|part| part.parse::<u32>().ok());
    let (major, minor) = (number().ok_or_else(wrong)?, number().ok_or_else(wrong)?);
    let number = calls::makedev(major, minor);
    calls::mknodat(calls::CWD, path, kind, 0o666.into(), number)?;
    let tell = |answer: io::Result<&'static str>| match told(answer) {
        Value::String(text) => text,
        other => other.to_string(),
    };
    let read = tell(opened(OpenOptions::new().read(true), Path::new(path)));
    let write = tell(opened(OpenOptions::new().write(true), Path::new(path)));
    Ok(format!("made, read {read}, write {write}"))
}

/// Executes a program, and tells what it printed.
fn run(rest: &str) -> io::Result<String> {
    let mut words = rest.split(' ');
    let mut program = std::process::Command::new(words.next().unwrap_or_default());
    let output = program.args(words).output()?;
    let text = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
    Ok(format!("{}: {text}", output.status))
}

/// System calls that a filter may answer for the kernel. None does harm where it is let through.
fn call(name: &str) -> io::Result<String> {
    let done = |()| "done".to_owned();
    let cwd = calls::CWD;
    Ok(match name {
        "mkdir" => calls::mkdir("/tmp/called", 0o755.into()).map(done)?,
        "mkdirat" => calls::mkdirat(cwd, "/tmp/called at", 0o755.into()).map(done)?,
        "chmod" => calls::chmod("/tmp", 0o1777.into()).map(done)?,
        "chroot" => process::chroot("/").map(done)?,
        "openat2" => {
            let (flags, none) = (calls::OFlags::PATH, calls::Mode::empty());
            calls::openat2(cwd, "/", flags, none, calls::ResolveFlags::empty()).map(|_| done(()))?
        }
        "pidfd_open" => {
            let own = process::getpid();
            process::pidfd_open(own, process::PidfdFlags::empty()).map(|_| done(()))?
        }
        "statx" => {
            let (flags, mask) = (calls::AtFlags::empty(), calls::StatxFlags::TYPE);
            calls::statx(cwd, "/", flags, mask).map(|_| done(()))?
        }
        "getpgid" => process::getpgid(None).map(|_| done(()))?,
        "getpgid 7" => process::getpgid(Pid::from_raw(7)).map(|_| done(()))?,
        "setpriority 5" => process::setpriority_process(None, 5).map(done)?,
        "setpriority -5" => process::setpriority_process(None, -5).map(done)?,
        "unshare user" => thread_of(UnshareFlags::NEWUSER)?,
        "unshare uts" => thread_of(UnshareFlags::NEWUTS)?,
        "unshare fs" => thread_of(UnshareFlags::FS)?,
        "sethostname" => rustix::system::sethostname(b"changed").map(done)?,
        "setgid" => thread::set_thread_gid(process::getgid()).map(done)?,
        "membarrier" => thread::membarrier(thread::MembarrierCommand::Global).map(done)?,
        "memfd_create" => {
            calls::memfd_create("probe", calls::MemfdFlags::CLOEXEC).map(|_| done(()))?
        }
        "link" => calls::link("/probe", "/tmp/linked").map(done)?,
        "mount" => mount()?,
        _ => "what?".to_owned(),
    })
}

#[expect(deprecated, reason = "there is one thread, which is what the newer name is about")]
fn thread_of(flags: UnshareFlags) -> io::Result<String> {
    Ok(thread::unshare(flags).map(|()| "done".to_owned())?)
}

fn mount() -> io::Result<String> {
    let flags = rustix::mount::MountFlags::empty();
    let done = rustix::mount::mount("none", "/tmp", "tmpfs", flags, None);
    Ok(done.map(|()| "done".to_owned())?)
}
