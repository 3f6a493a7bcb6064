//! Large requests: what the kernel takes has to work, and what it does not has to be an error.

use anyhow::{Result, ensure};
use shim_client::{ExecChange, Shape, exec_process};
use shim_protos::protobuf::MessageField;

use crate::case::group;
use crate::expect;
use crate::lab::{Ask, ExecIo, Lab, SLEEP, process_any};

group! { "input":
    Must long_argument: "An exec with an argument of 100 KiB MUST work.";
    Must too_long_argument: "An exec with an argument that the kernel refuses MUST fail, and harm nobody.";
    Must many_variables: "An exec with 10,000 variables MUST have them all.";
    Must large_spec: "A container whose config.json has 2 MiB MUST work.";
}

async fn long_argument(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    let io = ExecIo::open(lab, "e", Shape::Pipes)?;
    let long = "x".repeat(100 << 10);
    let args = ["/bin/sh", "-c", "echo ${#1}", "sh", &long];
    guest.exec_with("e", &args, |request| io.fill(request)).await?;
    guest.start("e").await?;
    guest.expect_exit("e", 0).await?;
    guest.delete("e").await?;
    let [length, _] = io.finish().await;
    ensure!(length == "102400\n", "expected 102400 characters, the process has {length:?}");
    Ok(())
}

async fn too_long_argument(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    // The kernel takes 128 KiB an argument.
    let long = "x".repeat(1 << 20);
    // A runtime may notice it only when the process counts as started.
    match guest.started("e", &["/bin/echo", &long]).await {
        Ok(_) => {
            let status = guest.wait("e").await?.exit_status;
            ensure!(status != 0, "the exec succeeds with an argument of {} bytes", long.len());
        }
        refused => expect::refused(refused)?,
    }
    let ended = lab.shell(&guest, "echo works").await?;
    ensure!(ended.stdout == "works\n", "an exec afterwards: {ended:?}");
    Ok(())
}

async fn many_variables(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    let io = ExecIo::open(lab, "e", Shape::Pipes)?;
    let script = "tr '\\0' '\\n' </proc/$$/environ | grep -c ^VARIABLE_; echo $VARIABLE_9999";
    let args = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    let mut process = exec_process(&guest.spec, &ExecChange { args, ..ExecChange::default() });
    let variables = (0..10_000).map(|number| format!("VARIABLE_{number}={number}"));
    process["env"] = ["PATH=/usr/bin:/bin".to_owned()].into_iter().chain(variables).collect();
    let answer = guest.exec_with("e", &[], |request| {
        io.fill(request);
        request.spec = MessageField::some(process_any(&process));
    });
    answer.await?;
    guest.start("e").await?;
    guest.expect_exit("e", 0).await?;
    guest.delete("e").await?;
    let [counted, _] = io.finish().await;
    ensure!(counted == "10000\n9999\n", "expected 10000 and 9999, got {counted:?}");
    Ok(())
}

async fn large_spec(lab: &Lab) -> Result<()> {
    let filler = "y".repeat(2 << 20);
    let ask = Ask::sh("exit 3").spec_with(move |spec| spec.annotation("org.filler", &filler));
    let guest = lab.run(ask).await?;
    guest.expect_exit("", 3).await?;
    guest.delete("").await?;
    Ok(())
}
