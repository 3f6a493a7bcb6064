//! What becomes of events when nobody takes them for a while, and what becomes of the shim.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::stub::{Stub, Temper};
use crate::case::group;
use crate::expect::optional;
use crate::lab::{Guest, Lab, eventually, procs};

group! { "events":
    Must calls_without_a_server: "With containerd's events service down, calls MUST be answered as ever.";
    Must calls_with_a_silent_server: "With an events service that never answers, calls MUST be answered as ever.";
    Must nothing_is_lost_at_the_start: "Events of the time before the events service came up MUST arrive.", within(60);
    Must nothing_is_lost_in_between: "Events of an outage of a few seconds MUST arrive.", within(60);
    Should order_survives_an_outage: "Events of an outage SHOULD arrive in their order.", within(60);
    Must another_server_is_found: "A new events service at the same address MUST get the events.";
    Must refusal_stops_nothing: "After an event that the service refused, the others MUST arrive.";
    Should refused_event_comes_again: "An event that the service refused SHOULD be sent again.", within(60);
    Must shutdown_without_a_server: "A shim MUST end when told to, with containerd's events service down.", within(60);
}

/// How long a shim may need to find out that the service is back: Go's waits longer with each try.
const BACK: Duration = Duration::from_secs(20);

/// A life whose calls must all be answered in time.
async fn live(guest: &Guest) -> Result<()> {
    /// Far above what any call takes, and below what a publisher waits for an answer.
    const LIMIT: Duration = Duration::from_secs(4);
    let begun = Instant::now();
    let mut at = begun;
    let mut in_time = |call: &str| {
        let took = at.elapsed();
        at = Instant::now();
        ensure!(took < LIMIT, "{call} took {took:?}");
        Ok(())
    };
    guest.create().await?;
    in_time("Create")?;
    guest.start("").await?;
    in_time("Start")?;
    guest.execute("e1").await?;
    in_time("an exec")?;
    guest.state("").await?;
    in_time("State")?;
    guest.kill_and_wait().await?;
    in_time("Kill and Wait")?;
    guest.delete("").await?;
    in_time("Delete")
}

async fn calls_without_a_server(lab: &Lab) -> Result<()> {
    lab.stop_events().await;
    live(&*lab.bare(&["sleep", "1000"]).await?).await
}

async fn calls_with_a_silent_server(lab: &Lab) -> Result<()> {
    lab.stop_events().await;
    let stub = Stub::listen(&lab.daemon().ttrpc_address, Temper::Silent)?;
    let lived = live(&*lab.bare(&["sleep", "1000"]).await?).await;
    stub.close().await;
    lived
}

/// Waits until the container's events are all of these, in whatever order.
async fn expect_all(lab: &Lab, guest: &Guest, expected: &[&str]) -> Result<()> {
    let mut sorted = expected.to_vec();
    sorted.sort_unstable();
    let is = || {
        let mut topics = lab.topics(&guest.id);
        topics.sort_unstable();
        topics == sorted
    };
    if eventually(BACK, is).await {
        return Ok(());
    }
    bail!("expected the events {expected:?}, got {:?} after {BACK:?}", lab.topics(&guest.id))
}

async fn nothing_is_lost_at_the_start(lab: &Lab) -> Result<()> {
    lab.stop_events().await;
    let guest = lab.running(&["sleep", "1000"]).await?;
    guest.kill_and_wait().await?;
    lab.resume_events().await?;
    expect_all(lab, &guest, &["create", "start", "exit"]).await
}

/// The events of an outage that has a whole pause in it, and the end.
async fn outage(lab: &Lab) -> Result<std::rc::Rc<Guest>> {
    let guest = lab.running(&["sleep", "1000"]).await?;
    lab.expect_topics(&guest.id, &["create", "start"]).await?;
    lab.stop_events().await;
    optional(guest.pause().await)?;
    guest.resume().await?;
    guest.kill_and_wait().await?;
    // As long as a restart of containerd takes.
    tokio::time::sleep(Duration::from_secs(1)).await;
    lab.resume_events().await?;
    Ok(guest)
}

const OUTAGE: [&str; 5] = ["create", "start", "paused", "resumed", "exit"];

async fn nothing_is_lost_in_between(lab: &Lab) -> Result<()> {
    let guest = outage(lab).await?;
    expect_all(lab, &guest, &OUTAGE).await
}

async fn order_survives_an_outage(lab: &Lab) -> Result<()> {
    let guest = outage(lab).await?;
    expect_all(lab, &guest, &OUTAGE).await?;
    lab.expect_topics(&guest.id, &OUTAGE).await
}

async fn another_server_is_found(lab: &Lab) -> Result<()> {
    let guest = lab.running(&["sleep", "1000"]).await?;
    lab.expect_topics(&guest.id, &["create", "start"]).await?;
    lab.stop_events().await;
    lab.resume_events().await?;
    guest.kill_and_wait().await?;
    guest.delete("").await?;
    expect_all(lab, &guest, &["create", "start", "exit", "delete"]).await
}

/// A life at a service that refuses the first event, and what it took.
async fn with_a_refusal(lab: &Lab, is: impl Fn(&[String]) -> bool) -> Result<(bool, Vec<String>)> {
    lab.stop_events().await;
    let stub = Stub::listen(&lab.daemon().ttrpc_address, Temper::RefusesOne)?;
    let guest = lab.running(&["true"]).await?;
    guest.wait("").await?;
    guest.delete("").await?;
    let found = eventually(BACK, || is(&stub.topics())).await;
    let topics = stub.topics();
    stub.close().await;
    Ok((found, topics))
}

async fn refusal_stops_nothing(lab: &Lab) -> Result<()> {
    let others = ["/tasks/start", "/tasks/exit", "/tasks/delete"];
    let (found, topics) = with_a_refusal(lab, |topics| {
        others.iter().all(|other| topics.iter().any(|topic| topic == other))
    })
    .await?;
    ensure!(found, "expected {others:?} after the refusal, got {topics:?}");
    Ok(())
}

async fn refused_event_comes_again(lab: &Lab) -> Result<()> {
    let (found, topics) =
        with_a_refusal(lab, |topics| topics.iter().any(|topic| topic == "/tasks/create")).await?;
    ensure!(found, "the refused create has not come again: {topics:?}");
    Ok(())
}

async fn shutdown_without_a_server(lab: &Lab) -> Result<()> {
    let guest = lab.bare(&["true"]).await?;
    lab.stop_events().await;
    guest.create().await?;
    guest.start("").await?;
    guest.wait("").await?;
    guest.delete("").await?;
    let pid = guest.shim_pid().await?;
    guest.shutdown().await?;
    // It may try for a while to get rid of its events, but not for good.
    ensure!(
        eventually(2 * BACK, || !procs::runs(pid)).await,
        "the shim still runs {:?} after Shutdown",
        2 * BACK
    );
    Ok(())
}
