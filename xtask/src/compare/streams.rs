//! Running verbs: their streams, and a limit to how long anything may take.

use std::{
    fs,
    io::{self, PipeReader, Read},
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};

use super::terminal::Console;

/// More than any verb or program here takes.
const LIMIT: Duration = Duration::from_secs(5);

/// How a verb ended, and what it printed.
pub(super) struct Answer {
    pub(super) status: ExitStatus,
    pub(super) out: String,
}

/// A verb that makes a container, complete.
pub(super) struct Making<'a> {
    pub(super) command: &'a mut Command,
    pub(super) pid_file: PathBuf,
    /// Where the terminal's master comes to.
    pub(super) socket: Option<PathBuf>,
}

/// What such a verb left.
pub(super) struct Made {
    pub(super) status: ExitStatus,
    pub(super) program: Program,
}

/// The container's program: its streams, and its end.
pub(super) struct Program {
    out: Stream,
    err: Stream,
    end: Option<OwnedFd>,
}

/// Runs a verb and collects what it prints. What it leaves running may keep its streams.
pub(super) fn answer(mut command: Command) -> Result<Answer> {
    let ((mut out, stdout), (mut err, stderr)) = (Stream::pipe()?, Stream::pipe()?);
    let mut child = command.stdout(stdout).stderr(stderr).spawn().context("run a verb")?;
    // Its copies of the pipes' ends would keep them open.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let status = wait(&mut child, &mut [&mut out, &mut err])?;
    Ok(Answer { status, out: out.text() })
}

/// Runs a verb that gives its streams to the container's program.
pub(super) fn make(making: Making<'_>) -> Result<Made> {
    let Making { command, pid_file, socket } = making;
    let ((mut out, stdout), (mut err, stderr)) = (Stream::pipe()?, Stream::pipe()?);
    let console = socket.map(|path| Console::bind(&path)).transpose()?;
    let mut child = command.stdout(stdout).stderr(stderr).spawn().context("run a verb")?;
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let status = wait(&mut child, &mut [&mut out, &mut err])?;
    if let Some(console) = console
        && let Some(master) = console.take()?
    {
        out = Stream::new(master);
    }
    let pid = fs::read_to_string(pid_file).ok().and_then(|text| text.trim().parse().ok());
    let pid = pid.and_then(Pid::from_raw);
    let end = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    Ok(Made { status, program: Program { out, err, end } })
}

impl Program {
    /// Waits for the first line.
    pub(super) fn read_line(&mut self) -> Result<()> {
        let end = self.end.as_ref().map(AsFd::as_fd);
        let until = Instant::now() + LIMIT;
        while !self.out.read.contains(&b'\n') {
            let streams: &mut [&mut Stream] = &mut [&mut self.out, &mut self.err];
            if step(streams, end, until)? {
                break;
            }
        }
        Ok(())
    }

    /// Waits for its end.
    pub(super) fn read_to_end(&mut self) -> Result<()> {
        let Some(end) = &self.end else { return Ok(()) };
        let until = Instant::now() + LIMIT;
        while !step(&mut [&mut self.out, &mut self.err], Some(end.as_fd()), until)? {}
        Ok(())
    }

    pub(super) fn out(&self) -> String {
        self.out.text()
    }

    pub(super) fn err(&self) -> String {
        self.err.text()
    }
}

/// What comes out of a pipe or a terminal, so far.
struct Stream {
    from: Option<fs::File>,
    read: Vec<u8>,
}

impl Stream {
    fn new(from: OwnedFd) -> Self {
        Self { from: Some(from.into()), read: Vec::new() }
    }

    fn pipe() -> Result<(Self, io::PipeWriter)> {
        let (from, to): (PipeReader, _) = io::pipe().context("make a pipe")?;
        Ok((Self::new(from.into()), to))
    }

    /// Reads once; an end is remembered.
    fn take(&mut self) {
        let mut room = [0; 1 << 16];
        let Some(from) = &mut self.from else { return };
        match from.read(&mut room) {
            Ok(count) if count > 0 => self.read.extend_from_slice(&room[..count]),
            // A terminal's end is an error.
            _ => self.from = None,
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.read).into_owned()
    }
}

fn wait(child: &mut Child, streams: &mut [&mut Stream]) -> Result<ExitStatus> {
    let pid = Pid::from_child(child);
    let end = pidfd_open(pid, PidfdFlags::empty()).context("open a verb's pidfd")?;
    let until = Instant::now() + LIMIT;
    loop {
        match step(streams, Some(end.as_fd()), until) {
            Ok(false) => {}
            Ok(true) => return child.wait().context("wait for a verb"),
            Err(err) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(err);
            }
        }
    }
}

/// Reads what there is, or waits for more; true when the process has ended and all is read.
fn step(
    streams: &mut [&mut Stream],
    end: Option<std::os::fd::BorrowedFd<'_>>,
    until: Instant,
) -> Result<bool> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        bail!("it takes more than {LIMIT:?}");
    }
    let open: Vec<usize> =
        (0..streams.len()).filter(|index| streams[*index].from.is_some()).collect();
    let mut polled: Vec<PollFd<'_>> = Vec::new();
    for index in &open {
        let file = streams[*index].from.as_ref().expect("it is open");
        polled.push(PollFd::new(file, PollFlags::IN));
    }
    polled.extend(end.as_ref().map(|end| PollFd::new(end, PollFlags::IN)));
    let limit = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: 1 };
    poll(&mut polled, Some(&limit)).context("poll")?;
    let ready: Vec<bool> = polled.iter().map(|one| !one.revents().is_empty()).collect();
    drop(polled);
    let mut has_read = false;
    for (place, index) in open.iter().enumerate() {
        if ready[place] {
            streams[*index].take();
            has_read = true;
        }
    }
    Ok(!has_read && ready.get(open.len()).copied().unwrap_or(open.is_empty()))
}
