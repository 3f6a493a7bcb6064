//! `start` more than once: again, at the same time, or cut short.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use shim_client::{Answer, Bundle, Shim, execute};
use shim_protos::task::ConnectRequest;
use tokio::time::timeout;

use crate::case::group;
use crate::expect::skip;
use crate::lab::{Ask, Lab, PATIENCE, procs};

group! { "bootstrap":
    Should second_start_finds_the_first: "A second `start` for the same id SHOULD answer with the shim that is there.";
    Must starts_join_at_once: "Ten `start` at the same time MUST all find the shim that their group has.", within(60);
    Should first_starts_at_once: "The first ten `start` of a group SHOULD make one shim, if they come at the same time.", within(60);
    Must start_after_a_killed_one: "After a `start` that was killed halfway, the next one MUST make a shim that serves.", within(120);
    Should killed_start_leaves_nothing: "A `start` that was killed halfway SHOULD leave nothing, once `delete` was executed.", within(120);
}

async fn second_start_finds_the_first(lab: &Lab) -> Result<()> {
    let guest = lab.bare(&["true"]).await?;
    let pid = guest.shim_pid().await?;
    let input = lab.start_input(&guest.id)?;
    let started = lab.raw_start(guest.shim.bundle(), input).await?;
    ensure!(started.status.success(), "{}: {}", started.status, started.stderr_text());
    let (first, second) =
        (&guest.shim.answer.address, Answer::parse(lab.generation, &started.stdout)?.address);
    ensure!(*first == second, "the second `start` answers {second}, the first {first}");
    ensure!(procs::runs(pid), "the first shim has ended");
    Ok(())
}

/// What ten `start` at once have answered, for that container of the group and nine others.
async fn ten(lab: &Lab, first: &str) -> Result<Vec<(Bundle, Answer)>> {
    let mut bundles = Vec::new();
    for number in 0..10 {
        let id = if number == 0 { first.to_owned() } else { format!("member{number}") };
        let spec = lab.spec(&id, &["true"]).annotation("io.containerd.runc.v2.group", "g");
        bundles.push(lab.bundle(&id, Some(&spec.build()))?);
    }
    let starting = bundles.into_iter().map(|bundle| async move {
        let started = lab.raw_start(&bundle, lab.start_input(bundle.id())?).await?;
        ensure!(started.status.success(), "{}: {}", started.status, started.stderr_text());
        let answer = Answer::parse(lab.generation, &started.stdout)?;
        anyhow::Ok((bundle, answer))
    });
    let mut starting: Vec<_> = starting.map(Box::pin).collect();
    // Each is polled in turn until all are done, by which they run side by side.
    let mut answers = Vec::new();
    std::future::poll_fn(|context| {
        starting.retain_mut(|one| match one.as_mut().poll(context) {
            std::task::Poll::Ready(answer) => {
                answers.push(answer);
                false
            }
            std::task::Poll::Pending => true,
        });
        if starting.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    answers.into_iter().collect()
}

async fn pid_of(lab: &Lab, bundle: &Bundle, answer: &Answer) -> Result<u32> {
    let (daemon, binary) = (lab.daemon(), &lab.subject.binary);
    let shim = Shim::connect(&daemon, binary, bundle, answer.clone()).await?;
    let request = ConnectRequest::default();
    let told = timeout(PATIENCE, shim.task.connect(&request)).await;
    Ok(told.context("Connect is not answered")??.shim_pid)
}

/// They have to be one shim, and to serve.
async fn expect_one(lab: &Lab, answers: Vec<(Bundle, Answer)>) -> Result<u32> {
    let mut shims = Vec::new();
    for (bundle, answer) in answers {
        let pid = pid_of(lab, &bundle, &answer).await.with_context(|| bundle.id().to_owned())?;
        ensure!(procs::runs(pid), "{}: process {pid} does not run", bundle.id());
        shims.push((answer.address, pid));
    }
    shims.sort();
    shims.dedup();
    ensure!(shims.len() == 1, "they are {} shims: {shims:?}", shims.len());
    Ok(shims[0].1)
}

async fn starts_join_at_once(lab: &Lab) -> Result<()> {
    let first = lab.prepare(Ask::new(&["true"]).id("g").group("g")).await?;
    let second = lab.prepare(Ask::new(&["true"]).id("second").group("g")).await?;
    if first.shim.answer != second.shim.answer {
        return skip("the shim does not group containers");
    }
    let (pid, expected) =
        (expect_one(lab, ten(lab, "another").await?).await?, first.shim_pid().await?);
    ensure!(pid == expected, "they are in the shim {pid}, expected {expected}");
    Ok(())
}

async fn first_starts_at_once(lab: &Lab) -> Result<()> {
    expect_one(lab, ten(lab, "g").await?).await?;
    Ok(())
}

/// How many times, and each a little later than the one before.
const TURNS: u32 = 30;

/// Executes `start` and kills it after a while, as containerd does when its client gives up.
async fn cut_short(lab: &Lab, bundle: &Bundle, after: Duration) -> Result<()> {
    let (daemon, binary) = (lab.daemon(), &lab.subject.binary);
    let input = lab.start_input(bundle.id())?;
    let starting = execute::raw(&daemon, binary, bundle, &["start"], input);
    if let Ok(started) = timeout(after, starting).await {
        // It was faster, and is an ordinary one.
        lab.answered(bundle, Answer::parse(lab.generation, &started?.stdout)?);
    }
    Ok(())
}

/// What containerd does after each `start` that failed. It only logs when that fails, too.
async fn delete(lab: &Lab, bundle: &Bundle) {
    if let Err(error) = lab.clean_up(bundle).await {
        log::debug!("{error:#}");
    }
}

/// Moments within the time that an undisturbed `start` takes, and shortly behind.
async fn moments(lab: &Lab) -> Result<impl Iterator<Item = Duration>> {
    let begun = Instant::now();
    lab.bare(&["true"]).await?;
    let whole = begun.elapsed();
    Ok((0..TURNS).map(move |turn| whole * turn / (TURNS - 5)))
}

async fn start_after_a_killed_one(lab: &Lab) -> Result<()> {
    for moment in moments(lab).await? {
        let id = lab.name("c");
        let bundle = lab.bundle(&id, Some(&lab.spec(&id, &["true"]).build()))?;
        cut_short(lab, &bundle, moment).await?;
        delete(lab, &bundle).await;
        let started = lab.raw_start(&bundle, lab.start_input(&id)?).await?;
        let told = || format!("after {moment:?}: {}", started.stderr_text());
        ensure!(started.status.success(), "{}", told());
        let answer = Answer::parse(lab.generation, &started.stdout).with_context(told)?;
        let pid = pid_of(lab, &bundle, &answer).await.with_context(told)?;
        ensure!(procs::runs(pid), "{}: process {pid} does not run", told());
        let (daemon, binary) = (lab.daemon(), &lab.subject.binary);
        lab.end_shim(Shim::connect(&daemon, binary, &bundle, answer).await?).await;
    }
    Ok(())
}

async fn killed_start_leaves_nothing(lab: &Lab) -> Result<()> {
    for moment in moments(lab).await? {
        let id = lab.name("c");
        let bundle = lab.bundle(&id, Some(&lab.spec(&id, &["true"]).build()))?;
        cut_short(lab, &bundle, moment).await?;
        // What is there afterwards is the lab's to find.
        delete(lab, &bundle).await;
    }
    Ok(())
}
