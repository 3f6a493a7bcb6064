//! Which streams there are, and where they lead.

use std::io::Write;

use anyhow::{Context, Result, ensure};
use shim_client::Shape;

use super::{fifos, read};
use crate::case::group;
use crate::expect;
use crate::lab::{Ask, ExecIo, Guest, Io, Lab, SLEEP, SOON, eventually, open_fifo};

group! { "stdio":
    Must null: "Streams that the request leaves out MUST be /dev/null.";
    Must with_and_without_stdin: "Both outputs MUST work with a stdin and without one.";
    Should each_subset: "Any of the three streams SHOULD work without the others.", within(90);
    Must init: "The init process's output MUST arrive, each stream in its own fifo.";
    Must one_fifo_for_both: "One fifo for stdout and stderr MUST get both.";
    Should fifo_scheme: "A stream given as fifo:// and a path SHOULD be that fifo.";
    Must unknown_scheme: "A stream with a scheme that the shim does not know MUST be refused by Create.";
    Must unknown_scheme_of_exec: "An exec's stream of an unknown scheme MUST be refused by Exec or Start.";
}

async fn null(lab: &Lab) -> Result<()> {
    // The number of the device, since the path may be the host's.
    let script = "
        for fd in 0 1 2; do
            [ $(stat -L -c %t:%T /proc/$$/fd/$fd) = 1:3 ] || exit 1$fd
        done";
    let guest = lab.run(Ask::sh(script)).await?;
    let status = guest.wait("").await?.exit_status;
    ensure!(status == 0, "descriptor {} of the init process is not /dev/null", status % 10);
    let guest = lab.running(&SLEEP).await?;
    guest.started("e", &["/bin/sh", "-c", script]).await?;
    let status = guest.wait("e").await?.exit_status;
    ensure!(status == 0, "descriptor {} of an exec is not /dev/null", status % 10);
    Ok(())
}

async fn with_and_without_stdin(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    one_subset(lab, &guest, "with", [true, true, true]).await.context("with stdin")?;
    one_subset(lab, &guest, "without", [false, true, true]).await.context("without stdin")
}

async fn each_subset(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    let mut failed = Vec::new();
    for subset in 1..8_u8 {
        let exec = format!("e{subset}");
        let streams = [0, 1, 2].map(|stream| subset & (1 << stream) != 0);
        if let Err(error) = one_subset(lab, &guest, &exec, streams).await {
            failed.push(format!("stdin, stdout, stderr as {streams:?}: {error:#}"));
        }
    }
    ensure!(failed.is_empty(), "{}", failed.join("; "));
    Ok(())
}

async fn one_subset(
    lab: &Lab,
    guest: &Guest,
    exec: &str,
    [stdin, stdout, stderr]: [bool; 3],
) -> Result<()> {
    let io = ExecIo::open(lab, exec, Shape::Pipes)?;
    let script = "read word; echo \"out $word\"; echo \"err $word\" >&2; exit 3";
    let args = ["/bin/sh", "-c", script];
    let answer = guest.exec_with(exec, &args, |request| {
        let kept = |uri: &String, wanted: bool| if wanted { uri.clone() } else { String::new() };
        request.stdin = kept(&io.uris[0], stdin);
        request.stdout = kept(&io.uris[1], stdout);
        request.stderr = kept(&io.uris[2], stderr);
    });
    answer.await?;
    guest.start(exec).await?;
    if stdin {
        let mut fifo = open_fifo(io.uris[0].as_ref())?;
        fifo.write_all(b"word\n").context("write to stdin")?;
        // Open until the process has read: the fifo's content would go with the last end.
        guest.expect_exit(exec, 3).await?;
    }
    guest.expect_exit(exec, 3).await?;
    guest.delete(exec).await?;
    let word = if stdin { "word" } else { "" };
    let expected = |name: &str, wanted| match wanted {
        true => format!("{name} {word}\n"),
        false => String::new(),
    };
    let (out, err) = (expected("out", stdout), expected("err", stderr));
    let arrived = || io.stdout.text() == out && io.stderr.text() == err;
    ensure!(
        eventually(SOON, arrived).await,
        "expected {out:?} and {err:?}, got {:?} and {:?}",
        io.stdout.text(),
        io.stderr.text()
    );
    Ok(())
}

async fn init(lab: &Lab) -> Result<()> {
    let guest = lab.run(Ask::sh("echo out; echo err >&2").io(Io::Pipes)).await?;
    guest.expect_exit("", 0).await?;
    guest.expect_output("out\n").await?;
    ensure!(eventually(SOON, || guest.stderr.text() == "err\n").await, "{:?}", guest.stderr.text());
    ensure!(guest.stdout.text() == "out\n", "on stdout: {:?}", guest.stdout.text());
    Ok(())
}

async fn one_fifo_for_both(lab: &Lab) -> Result<()> {
    let fifos = fifos(lab)?;
    let (stdout, _, _streams) = read(&fifos)?;
    let io = Io::Uris(String::new(), fifos.stdout(), fifos.stdout());
    let guest = lab.run(Ask::sh("echo out; echo err >&2").io(io)).await?;
    guest.expect_exit("", 0).await?;
    let both = || stdout.text().contains("out\n") && stdout.text().contains("err\n");
    ensure!(eventually(SOON, both).await, "expected out and err, got {:?}", stdout.text());
    Ok(())
}

async fn fifo_scheme(lab: &Lab) -> Result<()> {
    let fifos = fifos(lab)?;
    let (stdout, _, _streams) = read(&fifos)?;
    let io = Io::Uris(String::new(), format!("fifo://{}", fifos.stdout()), String::new());
    let guest = lab.run(Ask::sh("echo out; echo err >&2").io(io)).await?;
    guest.expect_exit("", 0).await?;
    ensure!(eventually(SOON, || stdout.text() == "out\n").await, "got {:?}", stdout.text());
    Ok(())
}

async fn unknown_scheme(lab: &Lab) -> Result<()> {
    let io = Io::Uris(String::new(), "pigeon:///tmp/nest".to_owned(), String::new());
    let guest = lab.prepare(Ask::new(&SLEEP).io(io)).await?;
    expect::refused(guest.create().await)?;
    ensure!(lab.topics(&guest.id).is_empty(), "events: {:?}", lab.topics(&guest.id));
    Ok(())
}

async fn unknown_scheme_of_exec(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    let started = async {
        let pigeon = "pigeon:///tmp/nest";
        guest.exec_with("e", &["true"], |request| request.stdout = pigeon.to_owned()).await?;
        guest.start("e").await
    };
    expect::refused(started.await)?;
    guest.started("after", &["true"]).await?;
    guest.expect_exit("after", 0).await
}
