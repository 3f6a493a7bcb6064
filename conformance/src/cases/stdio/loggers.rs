//! Output that goes to a program of the client's, which the shim executes.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::case::group;
use crate::expect;
use crate::lab::{Ask, Guest, Io, Lab, SOON, eventually};

group! { "stdio":
    Must logger_gets_the_output: "A binary:// logger MUST get stdout at its descriptor 3 and stderr at 4.", within(60);
    Must logger_knows_the_container: "A binary:// logger MUST have CONTAINER_ID and CONTAINER_NAMESPACE.", within(60);
    Should logger_knows_no_more: "A binary:// logger SHOULD have no other variables: the shim's are its own.", within(60);
    Must logger_has_its_arguments: "A binary:// logger MUST get keys and values of the query as arguments.", within(60);
    Must logger_is_waited_for: "Create MUST NOT be answered until the logger is ready.", within(60);
    Should logger_that_is_never_ready: "Create SHOULD be refused when the logger never gets ready.", within(60);
    Must logger_that_dies: "A logger that ends at once MUST NOT make the shim hang.", within(60);
    Must logger_that_is_missing: "Create MUST be refused when the logger does not exist.", within(60);
}

/// Says that it is ready, and copies both streams into files of the lab's folder.
const COPY: &str = "exec 5>&-; cat <&3 >$dir/out & cat <&4 >$dir/err; wait";

/// A logger that does this, in a shell whose `$dir` is the lab's folder, and its URI.
fn logger(lab: &Lab, work: &str) -> Result<String> {
    let path = lab.folder.join("logger");
    let script = format!("#!/bin/sh\ndir={}\n{work}\n", lab.folder.display());
    fs::write(&path, script).context("write a logger")?;
    fs::set_permissions(&path, Permissions::from_mode(0o755)).context("make it executable")?;
    Ok(format!("binary://{}", path.display()))
}

fn asked(uri: &str, script: &str) -> Ask {
    Ask::sh(script).io(Io::Uris(String::new(), uri.to_owned(), uri.to_owned()))
}

fn content(lab: &Lab, name: &str) -> String {
    fs::read_to_string(lab.folder.join(name)).unwrap_or_default()
}

async fn expect_content(lab: &Lab, name: &str, expected: &str) -> Result<()> {
    let is = eventually(SOON, || content(lab, name) == expected).await;
    ensure!(is, "expected {expected:?} in {name}, got {:?}", content(lab, name));
    Ok(())
}

/// Runs a script whose output goes to that logger.
async fn run(lab: &Lab, uri: &str, script: &str) -> Result<Rc<Guest>> {
    let guest = lab.prepare(asked(uri, script)).await?;
    expect::optional(guest.create().await)?;
    guest.start("").await?;
    Ok(guest)
}

async fn logger_gets_the_output(lab: &Lab) -> Result<()> {
    let uri = logger(lab, COPY)?;
    let guest = run(lab, &uri, "echo some out; echo some err >&2").await?;
    guest.expect_exit("", 0).await?;
    expect_content(lab, "out", "some out\n").await?;
    expect_content(lab, "err", "some err\n").await?;
    guest.delete("").await?;
    Ok(())
}

/// The variables of a logger, and those that it has to have.
async fn variables(lab: &Lab) -> Result<(Vec<String>, [String; 2])> {
    let uri = logger(lab, &format!("tr '\\0' '\\n' </proc/$$/environ | sort >$dir/env; {COPY}"))?;
    let guest = run(lab, &uri, "true").await?;
    guest.expect_exit("", 0).await?;
    guest.delete("").await?;
    let expected = [
        format!("CONTAINER_ID={}", guest.id),
        format!("CONTAINER_NAMESPACE={}", lab.daemon().namespace),
    ];
    Ok((content(lab, "env").lines().map(str::to_owned).collect(), expected))
}

async fn logger_knows_the_container(lab: &Lab) -> Result<()> {
    let (has, expected) = variables(lab).await?;
    let all = expected.iter().all(|one| has.contains(one));
    ensure!(all, "expected the variables {expected:?}, the logger has {has:?}");
    Ok(())
}

async fn logger_knows_no_more(lab: &Lab) -> Result<()> {
    let (has, expected) = variables(lab).await?;
    ensure!(has == expected, "expected the variables {expected:?} alone, the logger has {has:?}");
    Ok(())
}

async fn logger_has_its_arguments(lab: &Lab) -> Result<()> {
    let uri =
        logger(lab, &format!("for word in \"$@\"; do echo \"<$word>\"; done >$dir/args; {COPY}"))?;
    let guest = run(lab, &format!("{uri}?colour=pale%20green"), "true").await?;
    guest.expect_exit("", 0).await?;
    expect_content(lab, "args", "<colour>\n<pale green>\n").await?;
    guest.delete("").await?;
    Ok(())
}

async fn logger_is_waited_for(lab: &Lab) -> Result<()> {
    let wait = "until [ -e $dir/go ]; do sleep 0.01; done";
    let uri = logger(lab, &format!("touch $dir/begun; {wait}; {COPY}"))?;
    let guest = lab.prepare(asked(&uri, "echo out")).await?;
    let create = guest.create();
    let observe = async {
        let begun = || lab.folder.join("begun").exists();
        ensure!(eventually(SOON, begun).await, "the logger is not executed");
        // One that does not wait for the logger answers within this time.
        tokio::time::sleep(Duration::from_millis(400)).await;
        Ok(())
    };
    tokio::pin!(create);
    tokio::select! {
        answer = &mut create => {
            expect::optional(answer)?;
            anyhow::bail!("Create succeeds before the logger is ready");
        }
        observed = observe => observed?,
    }
    fs::write(lab.folder.join("go"), "").context("tell the logger to go on")?;
    create.await?;
    guest.start("").await?;
    guest.expect_exit("", 0).await?;
    expect_content(lab, "out", "out\n").await?;
    guest.delete("").await?;
    Ok(())
}

async fn logger_that_is_never_ready(lab: &Lab) -> Result<()> {
    // Not by a shell that waits for a child, which a kill of the shell would leave.
    let uri = logger(lab, "exec sleep 1000")?;
    let guest = lab.prepare(asked(&uri, "true")).await?;
    let request = guest.create_request();
    const LIMIT: Duration = Duration::from_secs(20);
    match tokio::time::timeout(LIMIT, guest.shim.task.create(&request)).await {
        Ok(answer) => expect::refused(answer),
        Err(_) => anyhow::bail!("Create has not answered within {LIMIT:?}"),
    }
}

async fn logger_that_dies(lab: &Lab) -> Result<()> {
    let uri = logger(lab, "exit 3")?;
    let guest = lab.prepare(asked(&uri, "exit 4")).await?;
    match guest.create().await {
        // The end of the descriptor counts as being ready.
        Ok(_) => {
            guest.start("").await?;
            guest.expect_exit("", 4).await?;
            guest.delete("").await?;
        }
        Err(error) => ensure!(error.code().is_some(), "{error}"),
    }
    Ok(())
}

async fn logger_that_is_missing(lab: &Lab) -> Result<()> {
    let guest = lab.prepare(asked("binary:///no/such/logger", "true")).await?;
    expect::refused(guest.create().await)?;
    ensure!(lab.topics(&guest.id).is_empty(), "events: {:?}", lab.topics(&guest.id));
    Ok(())
}
