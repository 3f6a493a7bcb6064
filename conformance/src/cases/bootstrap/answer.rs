//! What `start` prints.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use shim_client::{Answer, Generation, Output, execute};
use shim_protos::bootstrap::BootstrapResult;
use shim_protos::protobuf::Message;
use tokio::net::UnixStream;

use crate::case::group;
use crate::lab::{Ask, Lab};

group! { "bootstrap":
    Must address_is_connectable: "The address that `start` prints MUST be connectable when `start` has ended.";
    Must answer_is_all_there_is: "`start` MUST print its answer and nothing else: containerd reads stdout and stderr as one.";
    Must connect_names_the_shim: "Connect MUST answer before there is a container, with the shim's own pid.";
    Must socket_is_private: "The socket MUST NOT be open to other users.";
    Must answer_of_1_6: "For containerd 1.6 the answer MUST be a plain address.", until(Generation::V1_6);
    Must version_is_within_reach: "The answer MUST NOT announce a version of the service that the daemon cannot call.";
    Should answer_of_2_3: "For containerd 2.3 the answer SHOULD be a BootstrapResult of version 3.", since(Generation::V2_3);
    Must address_file_is_needed: "The shim MUST write its address to the bundle's `address`: containerd 1.x reconnects by it.", until(Generation::V1_7);
    Should address_file_helps: "The shim SHOULD write its address to the bundle's `address`.", since(Generation::V2_0);
    Must debug_changes_nothing: "With -debug, too, `start` MUST print its answer and nothing else.";
}

async fn address_is_connectable(lab: &Lab) -> Result<()> {
    let guest = lab.bare(&["true"]).await?;
    let address = &guest.shim.answer.address;
    let path = address.strip_prefix("unix://").unwrap_or(address);
    UnixStream::connect(path).await.with_context(|| format!("connect to {path}"))?;
    Ok(())
}

async fn answer_is_all_there_is(lab: &Lab) -> Result<()> {
    let bundle = lab.bundle("c", Some(&lab.spec("c", &["true"]).build()))?;
    let started = lab.raw_start(&bundle, lab.start_input("c")?).await?;
    ensure!(started.status.success(), "{}: {}", started.status, started.stderr_text());
    ensure!(started.stderr.is_empty(), "on stderr: {}", started.stderr_text());
    Answer::parse(lab.generation, &started.stdout)?;
    Ok(())
}

async fn connect_names_the_shim(lab: &Lab) -> Result<()> {
    let guest = lab.bare(&["true"]).await?;
    guest.shim_pid().await?;
    ensure!(guest.connect().await?.task_pid == 0, "there is no task yet");
    Ok(())
}

async fn socket_is_private(lab: &Lab) -> Result<()> {
    let guest = lab.prepare(Ask::new(&["true"])).await?;
    let Some(path) = guest.shim.answer.address.strip_prefix("unix://") else {
        return crate::expect::skip("an abstract socket has no mode");
    };
    let mode = std::fs::metadata(path)?.permissions().mode() & 0o777;
    let folder = Path::new(path).parent().context("a folder")?;
    let outer = std::fs::metadata(folder)?.permissions().mode() & 0o777;
    ensure!(mode & 0o077 == 0 || outer & 0o077 == 0, "socket {mode:o} in a folder {outer:o}");
    Ok(())
}

/// What `start` has left, in the bundle of the container `c`.
async fn started(lab: &Lab) -> Result<(shim_client::Bundle, Output)> {
    let bundle = lab.bundle("c", Some(&lab.spec("c", &["true"]).build()))?;
    let started = lab.raw_start(&bundle, lab.start_input("c")?).await?;
    ensure!(started.status.success(), "{}: {}", started.status, started.stderr_text());
    Ok((bundle, started))
}

async fn answer_of_1_6(lab: &Lab) -> Result<()> {
    let (_, started) = started(lab).await?;
    let text = String::from_utf8(started.stdout).context("the answer is no text")?;
    ensure!(!text.trim().contains(char::is_whitespace), "more than an address: {text:?}");
    let path = text.trim().strip_prefix("unix://").unwrap_or(text.trim());
    UnixStream::connect(path).await.with_context(|| format!("connect to {path:?}"))?;
    Ok(())
}

async fn version_is_within_reach(lab: &Lab) -> Result<()> {
    let guest = lab.bare(&["true"]).await?;
    let (version, newest) = (guest.shim.answer.version, lab.generation.newest_service());
    ensure!((2..=newest).contains(&version), "version {version}, expected 2 to {newest}");
    // The version it is must be served, too.
    ensure!(guest.connect().await?.shim_pid > 0, "Connect says that the shim is process 0");
    Ok(())
}

async fn answer_of_2_3(lab: &Lab) -> Result<()> {
    let (_, started) = started(lab).await?;
    let result = BootstrapResult::parse_from_bytes(&started.stdout)
        .with_context(|| format!("answer {:?}", String::from_utf8_lossy(&started.stdout)))?;
    ensure!(result.version == 3, "version {}, expected 3", result.version);
    ensure!(result.protocol == "ttrpc", "protocol {:?}, expected ttrpc", result.protocol);
    ensure!(result.address.starts_with("unix://"), "address {:?}", result.address);
    Ok(())
}

async fn address_file_is_needed(lab: &Lab) -> Result<()> {
    expect_address_file(lab).await
}

async fn address_file_helps(lab: &Lab) -> Result<()> {
    expect_address_file(lab).await
}

async fn expect_address_file(lab: &Lab) -> Result<()> {
    let (bundle, started) = started(lab).await?;
    let answered = Answer::parse(lab.generation, &started.stdout)?.address;
    let written = std::fs::read(bundle.path().join("address")).context("read `address`")?;
    let written = Answer::parse(lab.generation, &written)?.address;
    ensure!(written == answered, "`start` answers {answered}, `address` says {written}");
    Ok(())
}

async fn debug_changes_nothing(lab: &Lab) -> Result<()> {
    lab.change_daemon(|daemon| daemon.debug = true);
    let bundle = lab.bundle("c", Some(&lab.spec("c", &["true"]).build()))?;
    let (daemon, input) = (lab.daemon(), lab.start_input("c")?);
    let action = ["-debug", "start"];
    let started = execute::raw(&daemon, &lab.subject.binary, &bundle, &action, input).await?;
    ensure!(started.status.success(), "{}: {}", started.status, started.stderr_text());
    ensure!(started.stderr.is_empty(), "on stderr: {}", started.stderr_text());
    lab.answered(&bundle, Answer::parse(lab.generation, &started.stdout)?);
    Ok(())
}
