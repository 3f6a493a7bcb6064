//! The process that serves: what it keeps of the one that started it, and what not.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::rc::Rc;

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::{Pid, getpgid};

use crate::case::group;
use crate::lab::{Ask, Guest, Io, Lab, SOON, eventually, procs};

group! { "bootstrap":
    Must streams_are_given_up: "The serving process MUST NOT hold stdin, stdout or stderr of `start`.";
    Should own_process_group: "The serving process SHOULD have a process group of its own.";
    Should works_in_the_bundle: "The serving process SHOULD have the bundle for its working directory.";
    Should is_killed_before_containerd: "The serving process SHOULD have containerd's oom_score_adj, plus one.";
    Should adopts_orphans: "The serving process SHOULD be a subreaper: orphans of a container are its children.";
    Must starts_without_events: "`start` MUST work while containerd's events service is down.";
    Must serves_with_a_full_log: "A shim whose log nobody reads MUST go on serving when the fifo is full.";
}

async fn streams_are_given_up(lab: &Lab) -> Result<()> {
    let guest = lab.bare(&["true"]).await?;
    let pid = guest.shim_pid().await?;
    for number in 0..3 {
        // They were pipes to us, which only pipes could be.
        let Ok(target) = fs::read_link(format!("/proc/{pid}/fd/{number}")) else { continue };
        let target = target.display().to_string();
        ensure!(!target.starts_with("pipe:"), "descriptor {number} is {target}");
    }
    Ok(())
}

async fn own_process_group(lab: &Lab) -> Result<()> {
    let guest = lab.bare(&["true"]).await?;
    let pid = Pid::from_raw(i32::try_from(guest.shim_pid().await?)?);
    let group = getpgid(Some(pid)).context("ask for the process group")?;
    ensure!(group == pid, "process {pid} is in the process group {group}");
    Ok(())
}

async fn works_in_the_bundle(lab: &Lab) -> Result<()> {
    let guest = lab.bare(&["true"]).await?;
    let path = format!("/proc/{}/cwd", guest.shim_pid().await?);
    let folder = fs::read_link(&path).with_context(|| format!("read {path}"))?;
    let bundle = guest.shim.bundle().path();
    ensure!(folder == bundle, "it works in {}, expected {}", folder.display(), bundle.display());
    Ok(())
}

async fn is_killed_before_containerd(lab: &Lab) -> Result<()> {
    let guest = lab.bare(&["true"]).await?;
    let (own, told) = (oom_score("self")?, oom_score(&guest.shim_pid().await?.to_string())?);
    let expected = (own + 1).min(1000);
    ensure!(told == expected, "oom_score_adj is {told}, expected {expected}");
    Ok(())
}

fn oom_score(process: &str) -> Result<i32> {
    let path = format!("/proc/{process}/oom_score_adj");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    text.trim().parse().with_context(|| format!("parse {path}"))
}

async fn adopts_orphans(lab: &Lab) -> Result<()> {
    // With a pid namespace of its own, the container's own first process would adopt it.
    let script = "(sleep 1001 & echo ready); exec sleep 1000";
    let guest = lab.run(Ask::sh(script).io(Io::Pipes).host_pid()).await?;
    guest.expect_output("ready").await?;
    let (shim, init) = (guest.shim_pid().await?, guest.pid().await?);
    let is_orphan = |process: &procs::Process| {
        let command = fs::read(format!("/proc/{}/cmdline", process.pid)).unwrap_or_default();
        command.starts_with(b"sleep\x001001")
    };
    // The shell in between ends on its own time.
    let adopted = || {
        let orphan = procs::descendants().into_iter().find(is_orphan);
        orphan.is_some_and(|orphan| u32::try_from(orphan.parent) == Ok(shim))
    };
    ensure!(
        eventually(SOON, adopted).await,
        "the orphan is {:?}, expected it to be a child of the shim, process {shim}",
        procs::descendants().into_iter().find(is_orphan)
    );
    ensure!(procs::runs(init), "the container has ended");
    guest.kill_all(9).await?;
    guest.expect_exit("", 137).await
}

async fn starts_without_events(lab: &Lab) -> Result<()> {
    lab.stop_events().await;
    let guest = lab.bare(&["true"]).await?;
    guest.shim_pid().await?;
    lab.resume_events().await
}

async fn serves_with_a_full_log(lab: &Lab) -> Result<()> {
    lab.change_daemon(|daemon| daemon.debug = true);
    let guest = lab.bare(&["true"]).await?;
    let (guest, log) = stop_reading(lab, guest).await?;
    guest.create().await?;
    guest.start("").await?;
    guest.expect_exit("", 0).await?;
    guest.delete("").await?;
    drop(log);
    Ok(())
}

/// Has another connection take the place of the one that reads the log, and fills the fifo.
async fn stop_reading(lab: &Lab, guest: Rc<Guest>) -> Result<(Rc<Guest>, File)> {
    let path = guest.shim.bundle().log();
    let aside = path.with_file_name("log.aside");
    let left = lab.leave(guest).await?;
    let log = fill(&path)?;
    // A reader finds a fifo of that name, and it is another.
    fs::rename(&path, &aside).context("put the log aside")?;
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).context("create a fifo")?;
    Ok((lab.rejoin(left).await?, log))
}

fn fill(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(nix::libc::O_NONBLOCK);
    let mut fifo = options.open(path).with_context(|| format!("open {}", path.display()))?;
    for size in [4096, 1] {
        loop {
            match fifo.write(&vec![b'\n'; size]) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => bail!("fill the log: {error}"),
            }
        }
    }
    Ok(fifo)
}
