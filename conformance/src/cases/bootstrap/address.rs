//! Where the shim listens.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};
use shim_client::{Answer, Daemon, Generation, Shim};
use shim_protos::task::ConnectRequest;

use crate::case::group;
use crate::lab::{Ask, Lab, procs};

group! { "bootstrap":
    Should address_by_containerds_rule: "The socket SHOULD be named by the hash of daemon, namespace and id, as containerd's is.";
    Should unclean_daemon_address: "A daemon address with `..` in it SHOULD make the same socket as the clean one.";
    Should socket_dir_is_honoured: "The socket SHOULD be in the socket_dir of BootstrapParams.", since(Generation::V2_3);
    Must long_names_fit: "With the longest id and namespace the address MUST be connectable: 106 bytes at most.";
    Must dead_socket_is_replaced: "A socket file of a shim that was killed MUST NOT keep another from starting.";
    Must events_go_where_they_should: "Events MUST go to TTRPC_ADDRESS, wherever the daemon's other socket is.";
}

/// containerd's rule for the socket of a group of containers.
pub(super) fn by_rule(daemon: &Daemon, group: &str) -> PathBuf {
    let whole = daemon.grpc_address.join(&daemon.namespace).join(group);
    let name = clean(&whole).display().to_string();
    let folder = match &daemon.socket_dir {
        Some(folder) if daemon.generation >= Generation::V2_3 => folder,
        _ => Path::new("/run/containerd/s"),
    };
    folder.join(format!("{:x}", Sha256::digest(name)))
}

/// Go's `filepath.Clean`, for an absolute path.
fn clean(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => drop(cleaned.pop()),
            std::path::Component::CurDir => {}
            part => cleaned.push(part),
        }
    }
    cleaned
}

async fn address_by_containerds_rule(lab: &Lab) -> Result<()> {
    let guest = lab.bare(&["true"]).await?;
    let expected = format!("unix://{}", by_rule(&lab.daemon(), &guest.id).display());
    let told = &guest.shim.answer.address;
    ensure!(*told == expected, "address {told}, expected {expected}");
    Ok(())
}

async fn unclean_daemon_address(lab: &Lab) -> Result<()> {
    lab.change_daemon(|daemon| {
        daemon.grpc_address = PathBuf::from(format!("{}/./x/..//c.sock", lab.folder.display()));
    });
    address_by_containerds_rule(lab).await
}

async fn socket_dir_is_honoured(lab: &Lab) -> Result<()> {
    let folder = lab.folder.join("d");
    lab.change_daemon(|daemon| daemon.socket_dir = Some(folder.clone()));
    let guest = lab.bare(&["true"]).await?;
    let told = &guest.shim.answer.address;
    let path = told.strip_prefix("unix://").unwrap_or(told);
    ensure!(Path::new(path).starts_with(&folder), "address {told}, not in {}", folder.display());
    guest.shut_down().await?;
    ensure!(!Path::new(path).exists(), "the shim has ended and {path} is still there");
    Ok(())
}

async fn long_names_fit(lab: &Lab) -> Result<()> {
    lab.change_daemon(|daemon| {
        let own = daemon.namespace.clone();
        daemon.namespace = format!("{own}-{}", "n".repeat(75 - own.len()));
    });
    let guest = lab.run(Ask::new(&["true"]).id(&"i".repeat(76))).await?;
    guest.expect_exit("", 0).await?;
    let address = &guest.shim.answer.address;
    let path = address.strip_prefix("unix://").unwrap_or(address);
    ensure!(path.len() <= 106, "the path has {} bytes: {path}", path.len());
    Ok(())
}

async fn dead_socket_is_replaced(lab: &Lab) -> Result<()> {
    let guest = lab.bare(&["true"]).await?;
    let address = guest.shim.answer.address.clone();
    guest.kill_shim().await?;
    let path = address.strip_prefix("unix://").unwrap_or(&address);
    ensure!(UnixStream::connect(path).is_err(), "the killed shim still listens at {path}");
    if !Path::new(path).exists() {
        // With the rule, this is where the next one wants to listen.
        drop(std::os::unix::net::UnixListener::bind(path).context("leave a dead socket")?);
    }
    let input = lab.start_input(&guest.id)?;
    let started = lab.raw_start(guest.shim.bundle(), input).await?;
    ensure!(started.status.success(), "{}: {}", started.status, started.stderr_text());
    let answer = Answer::parse(lab.generation, &started.stdout)?;
    let (daemon, binary) = (lab.daemon(), &lab.subject.binary);
    let shim = Shim::connect(&daemon, binary, guest.shim.bundle(), answer).await?;
    let told = shim.task.connect(&ConnectRequest::default()).await?.shim_pid;
    ensure!(procs::runs(told), "Connect says that the shim is process {told}, and there is none");
    lab.end_shim(shim).await;
    Ok(())
}

async fn events_go_where_they_should(lab: &Lab) -> Result<()> {
    lab.stop_events().await;
    let folder = lab.folder.join("events");
    fs::create_dir(&folder)?;
    lab.change_daemon(|daemon| daemon.ttrpc_address = folder.join("here.sock"));
    lab.resume_events().await?;
    let guest = lab.running(&["true"]).await?;
    guest.wait("").await?;
    guest.delete("").await?;
    lab.expect_topics(&guest.id, &["create", "start", "exit", "delete"]).await
}
