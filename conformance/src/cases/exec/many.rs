//! Added processes by the dozen: nothing is lost, and nothing stays.

use anyhow::{Result, ensure};

use crate::case::group;
use crate::lab::{Guest, Lab, SLEEP, SOON, eventually, procs};

group! { "exec":
    Must hundred_in_a_row: "Execs that have been deleted MUST NOT keep descriptors or threads of the shim.", within(90);
    Must thirty_at_once: "Execs that run at once MUST each get their own exit status and one exit event.", within(60);
}

async fn one(guest: &Guest, exec: &str, code: u32) -> Result<()> {
    guest.started(exec, &["/bin/sh", "-c", &format!("exit {code}")]).await?;
    guest.expect_exit(exec, code).await?;
    guest.delete(exec).await?;
    Ok(())
}

async fn hundred_in_a_row(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    let shim = guest.shim_pid().await?;
    // The first ones make what a shim keeps: pools of threads, an event loop.
    for number in 0..10 {
        one(&guest, &format!("warm{number}"), number).await?;
    }
    let files = procs::open_files(shim)?;
    let threads = procs::threads(shim)?;
    for number in 0..100 {
        one(&guest, &format!("e{number}"), number).await?;
    }
    // Runtimes of languages keep a thread or two more, as they come.
    let back = || {
        procs::open_files(shim).is_ok_and(|now| now <= files + 2)
            && procs::threads(shim).is_ok_and(|now| now <= threads + 8)
    };
    ensure!(
        eventually(SOON, back).await,
        "before 100 execs {files} descriptors and {threads} threads, now {} and {}",
        procs::open_files(shim)?,
        procs::threads(shim)?
    );
    Ok(())
}

async fn thirty_at_once(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    let mut waits = Vec::new();
    for number in 0..30 {
        let exec = format!("e{number}");
        let script = format!("sleep 0.2; exit {}", number + 1);
        guest.started(&exec, &["/bin/sh", "-c", &script]).await?;
        waits.push((exec.clone(), number + 1, guest.waiting(&exec)));
    }
    for (exec, code, wait) in waits {
        let status = wait.await??.exit_status;
        ensure!(status == code, "{exec} ended with {status}, expected {code}");
        guest.delete(&exec).await?;
    }
    let all = || lab.topics(&guest.id).iter().filter(|one| one.starts_with("exit e")).count() >= 30;
    ensure!(eventually(SOON, all).await, "not every exit is told: {:?}", lab.topics(&guest.id));
    for number in 0..30 {
        let exits = lab.count_topic(&guest.id, &format!("exit e{number}"));
        ensure!(exits == 1, "{exits} exit events of e{number}");
    }
    Ok(())
}
