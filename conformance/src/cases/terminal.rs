//! Terminals: a container's, an exec's, and what may be done to them.

use std::io::Write;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use shim_client::{ExecChange, Shape, exec_process};
use shim_protos::protobuf::MessageField;
use shim_protos::types::Status;

use crate::case::group;
use crate::lab::{
    Ask, ExecIo, Guest, Io, Lab, SLEEP, SOON, eventually, open_fifo, process_any, procs,
};

group! { "terminal":
    Must is_one: "A container with a terminal MUST have it as all three streams.";
    Must resize: "ResizePty MUST set the size of a running container's terminal.";
    Must resize_before_start: "ResizePty before Start MUST set the size that the process begins with.";
    Must resize_is_told: "ResizePty MUST be told to the process by SIGWINCH.";
    Must resize_exec: "ResizePty of an exec MUST set the size of its terminal and not the container's.";
    Must resize_without: "ResizePty without a terminal MUST be answered, and not harm.";
    Must interrupt: "Control-C in a terminal's input MUST send SIGINT.";
    Must echo: "A terminal MUST echo its input, and end lines with carriage returns.";
    Must one_mebibyte: "1 MiB through a terminal MUST arrive, every line at its place.", within(60);
    Must ends: "A terminal's output MUST end when its process has ended and is deleted.";
    Must error_output: "A terminal's output MUST have what the process writes to stderr.";
    Must exec_in_plain_container: "An exec MUST get a terminal in a container without one.";
    Must request_decides: "The request MUST decide whether an exec has a terminal, not its spec.";
    Must nothing_stays: "Terminals of execs that were deleted MUST NOT keep descriptors of the shim.", within(90);
}

/// A container with a terminal that runs this, once it has said that it is ready.
async fn ready(lab: &Lab, script: &str) -> Result<Rc<Guest>> {
    let guest = lab.run(Ask::sh(&format!("echo ready; {script}")).io(Io::Terminal)).await?;
    guest.expect_output("ready").await?;
    Ok(guest)
}

const IS_TERMINAL: &str = "for fd in 0 1 2; do [ -t $fd ] || exit 1$fd; done; exit 9";

async fn is_one(lab: &Lab) -> Result<()> {
    let guest = lab.run(Ask::sh(IS_TERMINAL).io(Io::Terminal)).await?;
    let status = guest.wait("").await?.exit_status;
    ensure!(status == 9, "descriptor {} is no terminal", status % 10);
    let state = guest.state("").await?;
    ensure!(state.terminal, "State says that there is no terminal");
    Ok(())
}

async fn resize(lab: &Lab) -> Result<()> {
    let guest = ready(lab, "while read line; do stty size; done").await?;
    for (width, height) in [(132, 43), (80, 24)] {
        guest.resize("", width, height).await?;
        guest.stdin()?.write_all(b"\n")?;
        guest.expect_output(&format!("{height} {width}\r\n")).await?;
    }
    Ok(())
}

async fn resize_before_start(lab: &Lab) -> Result<()> {
    let guest = lab.create(Ask::sh("stty size").io(Io::Terminal)).await?;
    guest.resize("", 101, 37).await?;
    guest.start("").await?;
    guest.expect_output("37 101\r\n").await?;
    guest.expect_exit("", 0).await
}

async fn resize_is_told(lab: &Lab) -> Result<()> {
    let guest = ready(lab, "trap 'exit 5' WINCH; echo set; while :; do sleep 0.02; done").await?;
    guest.expect_output("set").await?;
    guest.resize("", 90, 30).await?;
    guest.expect_exit("", 5).await
}

fn terminal() -> ExecChange {
    ExecChange { terminal: true, ..ExecChange::default() }
}

async fn resize_exec(lab: &Lab) -> Result<()> {
    let guest = ready(lab, "while read line; do stty size; done").await?;
    guest.resize("", 80, 24).await?;
    let script = "echo ready; while read line; do stty size; done";
    let io = lab.shell_begun(&guest, "e", script, terminal()).await?;
    io.expect_output("ready").await?;
    guest.resize("e", 111, 22).await?;
    open_fifo(io.uris[0].as_ref())?.write_all(b"\n")?;
    io.expect_output("22 111\r\n").await?;
    guest.stdin()?.write_all(b"\n")?;
    guest.expect_output("24 80\r\n").await
}

async fn resize_without(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    guest.started("e", &SLEEP).await?;
    for exec in ["", "e"] {
        if let Err(error) = guest.resize(exec, 80, 24).await {
            ensure!(error.code().is_some(), "{error}");
        }
        guest.expect_status(exec, Status::RUNNING).await?;
    }
    Ok(())
}

async fn interrupt(lab: &Lab) -> Result<()> {
    let guest = ready(lab, "trap 'exit 7' INT; echo set; while :; do sleep 0.02; done").await?;
    guest.expect_output("set").await?;
    guest.stdin()?.write_all(b"\x03")?;
    guest.expect_exit("", 7).await
}

async fn echo(lab: &Lab) -> Result<()> {
    let guest = ready(lab, "cat").await?;
    guest.stdin()?.write_all(b"hello\n")?;
    guest.expect_output("hello\r\nhello\r\n").await?;
    // Control-D, the end of a terminal's input.
    guest.stdin()?.write_all(b"\x04")?;
    guest.expect_exit("", 0).await
}

async fn one_mebibyte(lab: &Lab) -> Result<()> {
    let guest = lab.run(Ask::new(&["seq", "1", "150000"]).io(Io::Terminal)).await?;
    guest.expect_exit("", 0).await?;
    guest.delete("").await?;
    let expected: String = (1..=150_000).map(|number| format!("{number}\r\n")).collect();
    eventually(SOON, || guest.stdout.bytes().len() == expected.len()).await;
    let got = guest.stdout.bytes();
    let same = got.iter().zip(expected.as_bytes()).take_while(|(got, wanted)| got == wanted);
    let same = same.count();
    ensure!(
        got == expected.as_bytes(),
        "{} of {} bytes, right up to {same}",
        got.len(),
        expected.len()
    );
    Ok(())
}

async fn ends(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    let io = lab.shell_begun(&guest, "e", "echo last; exit 3", terminal()).await?;
    guest.expect_exit("e", 3).await?;
    guest.delete("e").await?;
    let begun = Instant::now();
    let [shown, _] = io.finish().await;
    ensure!(shown == "last\r\n", "expected one line, got {shown:?}");
    let took = begun.elapsed();
    ensure!(took < Duration::from_secs(4), "the output had not ended after {took:?}");
    Ok(())
}

async fn error_output(lab: &Lab) -> Result<()> {
    let guest = lab.run(Ask::sh("echo out; echo err >&2").io(Io::Terminal)).await?;
    guest.expect_exit("", 0).await?;
    guest.expect_output("out\r\nerr\r\n").await
}

async fn exec_in_plain_container(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    let ended = lab.shell_as(&guest, &format!("tty; {IS_TERMINAL}"), terminal()).await?;
    ensure!(ended.status == 9, "no terminal: {ended:?}");
    ensure!(ended.stdout.starts_with("/dev/"), "the terminal has no name: {ended:?}");
    Ok(())
}

async fn request_decides(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    for asked in [true, false] {
        let exec = lab.name("e");
        let shape = if asked { Shape::Terminal } else { Shape::Pipes };
        let io = ExecIo::open(lab, &exec, shape)?;
        let args = ["/bin/sh", "-c", IS_TERMINAL].map(str::to_owned).to_vec();
        let change = ExecChange { args, terminal: !asked, ..ExecChange::default() };
        let process = exec_process(&guest.spec, &change);
        let answer = guest.exec_with(&exec, &[], |request| {
            io.fill(request);
            request.terminal = asked;
            request.spec = MessageField::some(process_any(&process));
        });
        answer.await?;
        guest.start(&exec).await?;
        let expected = if asked { 9 } else { 10 };
        guest
            .expect_exit(&exec, expected)
            .await
            .with_context(|| format!("request: {asked}, spec: {}", !asked))?;
        guest.delete(&exec).await?;
    }
    Ok(())
}

/// An exec with a terminal and a client that has its stdin open, as containerd's have.
async fn attached(lab: &Lab, guest: &Guest) -> Result<()> {
    let exec = lab.name("e");
    let io = lab.shell_begun(guest, &exec, "read line; tty", terminal()).await?;
    let mut stdin = open_fifo(io.uris[0].as_ref())?;
    stdin.write_all(b"\n")?;
    guest.expect_exit(&exec, 0).await?;
    drop(stdin);
    guest.delete(&exec).await?;
    io.finish().await;
    Ok(())
}

async fn nothing_stays(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    let shim = guest.shim_pid().await?;
    for _ in 0..3 {
        attached(lab, &guest).await?;
    }
    let before = procs::open_files(shim)?;
    let (mut now, mut most) = (before, before);
    for number in 1..=240 {
        attached(lab, &guest).await?;
        now = procs::open_files(shim)?;
        most = most.max(now);
        // Some languages close late, and many at a time, what nobody uses any more.
        if number >= 80 && (now <= before + 10 || now + 10 < most) {
            return Ok(());
        }
    }
    bail!("before 240 terminals {before} descriptors, now {now}, and at most {most}")
}
