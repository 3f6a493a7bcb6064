//! The agent as a plain process on a unix socket, in namespaces of its own where a machine would be: what
//! speaks to it can be tested without one.

use std::{
    env,
    ffi::OsString,
    io,
    os::{fd::AsFd, unix::net::UnixStream as StdStream},
    path::PathBuf,
    process::ExitCode,
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use shim_core::{Context, Error, Result};
use shim_runc::NativeBackend;
use tokio::net::UnixStream;

use super::{Ground, Places, serve};
use crate::channel::Word;

/// The name of the subcommand.
pub const SUBCOMMAND: &str = "agent";

/// What its command line says.
#[derive(Debug, PartialEq, Eq)]
struct Flags {
    socket: Socket,
    word: Word,
    root: PathBuf,
}

/// Where the host is.
#[derive(Debug, PartialEq, Eq)]
enum Socket {
    /// Standard input is the line.
    Inherited,
    /// A socket that it listens at.
    Path(PathBuf),
}

/// Runs `agent --socket -|PATH --word WORD --root DIRECTORY` to its end.
pub fn run_as_process(engine: NativeBackend) -> ExitCode {
    match Flags::parse(env::args_os().skip(2)).and_then(|flags| run(flags, engine)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            #[expect(clippy::print_stderr, reason = "there is nobody else to tell")]
            {
                eprintln!("agent: {err:#}");
            }
            ExitCode::FAILURE
        }
    }
}

impl Flags {
    fn parse(mut words: impl Iterator<Item = OsString>) -> Result<Self> {
        let (mut socket, mut word, mut root) = (None, None, None);
        while let Some(flag) = words.next() {
            let missing = || Error::invalid(format!("{} needs a value", flag.display()));
            let value = words.next().ok_or_else(missing)?;
            match flag.to_str() {
                Some("--socket") if value == "-" => socket = Some(Socket::Inherited),
                Some("--socket") => socket = Some(Socket::Path(value.into())),
                Some("--word") => word = Some(Word::parse(&value.to_string_lossy())?),
                Some("--root") => root = Some(PathBuf::from(value)),
                _ => return Err(Error::invalid(format!("no flag {}", flag.display()))),
            }
        }
        let missing = |flag| move || Error::invalid(format!("{flag} is missing"));
        Ok(Self {
            socket: socket.ok_or_else(missing("--socket"))?,
            word: word.ok_or_else(missing("--word"))?,
            root: root.ok_or_else(missing("--root"))?,
        })
    }
}

fn run(flags: Flags, engine: NativeBackend) -> Result<()> {
    let places = Places::below(flags.root)?;
    leave_the_host()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let line = match flags.socket {
            Socket::Inherited => {
                let line = io::stdin().as_fd().try_clone_to_owned().context("share the socket")?;
                StdStream::from(line)
            }
            Socket::Path(path) => StdStream::connect(&path)
                .with_context(|| format!("connect to {}", path.display()))?,
        };
        line.set_nonblocking(true).context("prepare the line")?;
        let line = UnixStream::from_std(line).context("watch the line")?;
        serve(line, &flags.word, engine, places, Ground::Process).await.map(drop)
    })
}

/// Takes namespaces for what a pod's setup changes. Mounts of the host's still come in, for a share is made
/// of them; none goes out.
fn leave_the_host() -> Result<()> {
    let flags = CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWNS;
    unshare(flags).context("make namespaces")?;
    let slave = MsFlags::MS_SLAVE | MsFlags::MS_REC;
    mount(None::<&str>, "/", None::<&str>, slave, None::<&str>).context("part the mounts")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Flags> {
        Flags::parse(words.iter().map(OsString::from))
    }

    #[test]
    fn the_command_line_is_read_and_what_is_wrong_is_named() {
        let all = ["--socket", "-", "--word", "abc", "--root", "/r"];
        let flags = parse(&all).unwrap();
        assert_eq!(flags.socket, Socket::Inherited);
        assert_eq!(flags.root, PathBuf::from("/r"));
        assert!(parse(&all[..4]).unwrap_err().to_string().contains("--root"));
        assert!(parse(&all[..5]).unwrap_err().to_string().contains("--root needs"));
        assert!(parse(&["--wrod", "x"]).unwrap_err().to_string().contains("--wrod"));
    }
}
