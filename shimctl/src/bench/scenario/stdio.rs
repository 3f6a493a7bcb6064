//! Bytes and lines through the streams of a process that was added to a container.
//!
//! | row | from, to |
//! |---|---|
//! | stdout, terminal | the first read from the fifo, until all bytes are there |
//! | stdin | the first write to the fifo, until the process has seen its end, ended and is deleted |
//! | line | a line into `cat`, until it is back |
//!
//! Nothing flows before the clock runs: nobody reads, or nobody writes. CPU time is that of the
//! shim and its helpers, from the reply of Start until the bytes are there. Of a rate more is better,
//! so its 95th percentile is its best.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use shim_client::{Fifos, Shape};

use super::super::life::{Added, Life, Pids, Prepared, Terminal};
use super::super::measured::{Reading, whole};
use super::super::process::CpuTime;
use super::super::{Plan, Subject};
use super::kept;

/// What `dd` moves at once, and we.
const BLOCK: u64 = 64 << 10;

/// A terminal moves a few KiB at a time, so it gets less to do.
const TERMINAL_SHARE: u64 = 8;

/// Lines that do not count.
const FIRST_LINES: usize = 20;

/// A gigabyte through a terminal takes a slow shim a minute.
const LONGEST: Duration = Duration::from_secs(1800);

/// Each stream of one container once.
pub(super) async fn round(
    plan: &Arc<Plan>,
    subject: &Arc<Subject>,
    round: usize,
) -> Result<Vec<Reading>> {
    let (mut life, _) = Prepared::new(plan, subject, &format!("{round}"), None)?.begin().await?;
    let streamed = streams(&mut life).await;
    let (life, rows) = kept(life, streamed).await?;
    life.clean_up().await?;
    Ok(rows)
}

async fn streams(life: &mut Life) -> Result<Vec<Reading>> {
    life.create().await?;
    life.start().await?;
    let bytes = life.plan().bytes;
    let pids = life.pids().await?;
    let mut rows = Vec::new();
    let out = output(life, pids, bytes, Terminal::No).await.context("stdout")?;
    rows.extend(moved(["stdout time", "stdout cpu", "stdout rate"], bytes, out));
    let into = input(life, pids, bytes).await.context("stdin")?;
    rows.extend(moved(["stdin time", "stdin cpu", "stdin rate"], bytes, into));
    let share = bytes / TERMINAL_SHARE;
    let out = output(life, pids, share, Terminal::Yes).await.context("terminal")?;
    rows.extend(moved(["terminal time", "terminal cpu", "terminal rate"], share, out));
    let times = lines(life).await.context("line")?;
    rows.extend(times.iter().map(|time| Reading::new("line", "us", time.as_secs_f64() * 1e6)));
    life.kill().await?;
    life.delete().await?;
    Ok(rows)
}

/// What it took to move something.
#[derive(Clone, Copy, Debug)]
struct Cost {
    wall: Duration,
    cpu: Duration,
}

fn moved(names: [&'static str; 3], bytes: u64, cost: Cost) -> [Reading; 3] {
    let rate = whole(bytes) / 1e6 / cost.wall.as_secs_f64().max(f64::MIN_POSITIVE);
    [
        Reading::time(names[0], cost.wall),
        Reading::time(names[1], cost.cpu),
        Reading::new(names[2], "MB/s", rate),
    ]
}

/// Reads what a process writes.
async fn output(life: &Life, pids: Pids, bytes: u64, terminal: Terminal) -> Result<Cost> {
    let shape = match terminal {
        Terminal::Yes => Shape::Terminal,
        Terminal::No => Shape::Pipes,
    };
    let fifos = Fifos::create(&life.scratch().join("fifos"), shape)?;
    let (fifo, _errors) = (reading_end(&fifos.stdout())?, errors_end(&fifos)?);
    let blocks = format!("count={}", bytes.div_ceil(BLOCK));
    let size = format!("bs={BLOCK}");
    let dd = ["dd", "if=/dev/zero", &size, &blocks];
    let process = life.exec(&dd, Some((&fifos, terminal))).await?;
    let before = cpu_time(pids, process)?;
    let (wall, fifo) = in_a_thread(life, move || {
        let begun = Instant::now();
        receive(&fifo, bytes)?;
        Ok((begun.elapsed(), fifo))
    })
    .await?;
    let cpu = cpu_time(pids, process)? - before;
    // The rest of the last block, and what dd says to a terminal.
    let (end, ended) = std::io::pipe().context("create a pipe")?;
    let rest = std::thread::spawn(move || drain(&fifo, &end));
    let done = life.end_exec().await;
    drop(ended);
    ensure!(rest.join().is_ok(), "the reader panicked");
    fifos.remove()?;
    done.map(|_| Cost { wall, cpu })
}

/// Writes what a process reads.
async fn input(life: &Life, pids: Pids, bytes: u64) -> Result<Cost> {
    let fifos = Fifos::create(&life.scratch().join("fifos"), Shape::Pipes)?;
    let fifo = writing_end(&fifos)?;
    let (_output, _errors) = (reading_end(&fifos.stdout())?, errors_end(&fifos)?);
    let size = format!("bs={BLOCK}");
    let streams = Some((&fifos, Terminal::No));
    let process = life.exec(&["dd", "of=/dev/null", &size], streams).await?;
    let before = cpu_time(pids, process)?;
    let begun = Instant::now();
    let fifo = in_a_thread(life, move || send(&fifo, bytes).map(|()| fifo)).await?;
    life.end_input(fifo).await?;
    life.end_exec().await?;
    let cost = Cost { wall: begun.elapsed(), cpu: cpu_time(pids, process)? - before };
    fifos.remove()?;
    Ok(cost)
}

/// Sends lines there and back, one by one.
async fn lines(life: &Life) -> Result<Vec<Duration>> {
    let fifos = Fifos::create(&life.scratch().join("fifos"), Shape::Pipes)?;
    let (to, from) = (writing_end(&fifos)?, reading_end(&fifos.stdout())?);
    let _errors = errors_end(&fifos)?;
    life.exec(&["cat"], Some((&fifos, Terminal::No))).await?;
    let count = life.plan().lines;
    let (times, to, _from) = in_a_thread(life, move || {
        (&to).write_all(b"\n").context("write")?;
        has_begun(&from)?;
        (&from).read_exact(&mut [0]).context("read")?;
        let times = (0..FIRST_LINES + count).map(|_| there_and_back(&to, &from));
        let times: Vec<Duration> = times.collect::<Result<_>>()?;
        Ok((times[FIRST_LINES..].to_vec(), to, from))
    })
    .await?;
    life.end_input(to).await?;
    life.end_exec().await?;
    fifos.remove()?;
    Ok(times)
}

fn cpu_time(pids: Pids, process: Added) -> Result<CpuTime> {
    CpuTime::by(&HashSet::from([pids.shim]), &HashSet::from([pids.task, process.pid]))
}

/// Blocks a thread of its own, and not the connection to the shim.
async fn in_a_thread<T: Send + 'static>(
    life: &Life,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let work = tokio::task::spawn_blocking(work);
    life.plan().stop.or("streams", LONGEST, work).await?.context("a stream's thread panicked")?
}

/// For reading, before anybody writes; reads will block.
fn reading_end(path: &str) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(OFlag::O_NONBLOCK.bits());
    let fifo = options.open(path).with_context(|| format!("open {path}"))?;
    fcntl(&fifo, FcntlArg::F_SETFL(OFlag::empty())).with_context(|| format!("unblock {path}"))?;
    Ok(fifo)
}

/// For what a process says besides, which fits into the fifo; a terminal has none.
fn errors_end(fifos: &Fifos) -> Result<Option<File>> {
    let path = fifos.stderr();
    (!path.is_empty()).then(|| reading_end(&path)).transpose()
}

/// For writing, and for reading too: so neither this nor a write fails without a reader.
fn writing_end(fifos: &Fifos) -> Result<File> {
    let path = fifos.stdin();
    OpenOptions::new().read(true).write(true).open(&path).with_context(|| format!("open {path}"))
}

/// Waits for the first byte. Until there was a writer, a read would find an end; poll waits for one.
fn has_begun(fifo: &File) -> Result<()> {
    let mut fds = [PollFd::new(fifo.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::NONE).context("poll").map(drop)
}

fn receive(mut fifo: &File, bytes: u64) -> Result<()> {
    if bytes == 0 {
        return Ok(());
    }
    has_begun(fifo)?;
    let mut buffer = vec![0; 64 << 10];
    let mut left = bytes;
    while left > 0 {
        let count = fifo.read(&mut buffer).context("read")?;
        ensure!(count > 0, "it ended {left} bytes early");
        left = left.saturating_sub(count as u64);
    }
    Ok(())
}

/// Throws away what comes, until the other pipe is hung up.
fn drain(mut fifo: &File, until: &std::io::PipeReader) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let mut fds = [
            PollFd::new(fifo.as_fd(), PollFlags::POLLIN),
            PollFd::new(until.as_fd(), PollFlags::POLLIN),
        ];
        let ready = poll(&mut fds, PollTimeout::NONE).is_ok();
        if !ready
            || fds[1].any().unwrap_or(true)
            || matches!(fifo.read(&mut buffer), Ok(0) | Err(_))
        {
            return;
        }
    }
}

fn send(mut fifo: &File, bytes: u64) -> Result<()> {
    let buffer = vec![b'x'; 64 << 10];
    let mut left = bytes;
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        left -= fifo.write(&buffer[..most]).context("write")? as u64;
    }
    Ok(())
}

fn there_and_back(mut to: &File, mut from: &File) -> Result<Duration> {
    const LINE: &[u8] = b"the quick brown fox jumps over the lazy dog\n";
    let mut buffer = [0; LINE.len()];
    let begun = Instant::now();
    to.write_all(LINE).context("write")?;
    from.read_exact(&mut buffer).context("read")?;
    let took = begun.elapsed();
    ensure!(buffer == LINE, "another line came back");
    Ok(took)
}
