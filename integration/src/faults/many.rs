//! A shim for a whole namespace: many at once, and what one of them must not do to the others.

mod trouble;

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::mount::{MsFlags, mount};
use nix::sys::signal::Signal;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use shim_client::{ShimBinary, execute, runtime_options};
use shim_protos::task::{KillRequest, PauseRequest};
use tokio::task::JoinSet;

use self::trouble::Trouble;
use super::after;
use super::life::{Life, Prints};
use super::matrix::Step;
use super::run::Extra;
use super::stage::Stage;
use crate::leaks::Snapshot;
use crate::procs;
use crate::soak::sample::Sample;
use crate::wait::{self, SOON};

/// The tests of this module.
pub const EXTRAS: [Extra; 5] = [
    Extra { name: "many::starts_race_for_the_first_shim", run: races },
    Extra { name: "many::shims_end_and_begin_between_containers", run: churns },
    Extra { name: "many::a_killed_shim_leaves_nothing_of_twenty", run: killed },
    Extra { name: "many::two_hundred_come_and_go", run: crowd },
    Extra { name: "many::nobody_holds_up_the_others", run: held_up },
];

/// How long a life from `start` to Delete may take beside all that can go wrong with others.
const UNDISTURBED: Duration = Duration::from_secs(3);

/// What a shim may keep of two hundred containers, in KiB, of about twenty that each had: the
/// allocator keeps some pieces of every size, and with each of them a page.
const KEPT: u64 = 1024;

/// What a test does with its stage; lives on it outlive no test.
type Play = fn(Arc<Stage>) -> std::pin::Pin<Box<dyn Future<Output = Result<()>>>>;

fn races(mark: &str) -> Result<()> {
    judge(mark, |stage| Box::pin(race(stage)))
}

fn churns(mark: &str) -> Result<()> {
    judge(mark, |stage| Box::pin(churn(stage)))
}

fn killed(mark: &str) -> Result<()> {
    judge(mark, |stage| Box::pin(kill_twenty(stage)))
}

fn crowd(mark: &str) -> Result<()> {
    judge(mark, |stage| Box::pin(come_and_go(stage)))
}

fn held_up(mark: &str) -> Result<()> {
    judge(mark, |stage| Box::pin(disturb(stage)))
}

/// Plays on a stage whose containers share a shim, and sees that nothing is left.
fn judge(mark: &str, play: Play) -> Result<()> {
    let mut stage = Stage::open(mark)?;
    let options = [("Grouping".to_owned(), "namespace".to_owned())];
    stage.options = runtime_options(&stage.binary, &options)?;
    // Many bundles.
    mount(Some("faults"), &stage.dir, Some("tmpfs"), MsFlags::MS_REMOUNT, Some("size=64m"))?;
    let before = Snapshot::take(mark)?;
    let stage = Arc::new(stage);
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build();
    let first = runtime()?;
    let played = first.block_on(play(Arc::clone(&stage)));
    // Calls that were given up have the stage, too.
    drop(first);
    let mut stage = Arc::into_inner(stage).context("a life still goes on")?;
    let left = runtime()?.block_on(after::nothing_left(&mut stage, &before));
    played?;
    left
}

/// Goes from nothing to a step.
async fn until(stage: &Stage, life: &mut Life, last: Step) -> Result<()> {
    for step in [Step::Bootstrap, Step::Create, Step::Start].into_iter().filter(|s| *s <= last) {
        life.go(stage, step).await?;
    }
    Ok(())
}

async fn running(stage: &Stage) -> Result<Life> {
    let mut life = unlimited(stage)?;
    until(stage, &mut life, Step::Start).await?;
    Ok(life)
}

/// A container that is given what its shim was given. Nobody reads of it: hundreds of readers would
/// take more of the machine than the shim.
fn unlimited(stage: &Stage) -> Result<Life> {
    let life = Life::of(stage, Prints::Nothing, |spec| spec["process"]["rlimits"] = json!([]))?;
    life.logger.close();
    life.reader.close();
    Ok(life)
}

/// Twenty at once get one shim, which goes when none of them comes.
async fn race(stage: Arc<Stage>) -> Result<()> {
    for _ in 0..5 {
        let mut starts = JoinSet::new();
        for _ in 0..20 {
            let (life, stage) = (Life::new(&stage, Prints::Nothing)?, Arc::clone(&stage));
            starts.spawn(async move {
                let (daemon, options) = (&stage.daemon, stage.options.as_ref());
                let answer = execute::start(daemon, &stage.binary, life.bundle(), options).await;
                (life, answer)
            });
        }
        let (mut lives, mut addresses) = (Vec::new(), Vec::new());
        for (life, answer) in starts.join_all().await {
            lives.push(life);
            addresses.push(answer?.address);
        }
        addresses.sort_unstable();
        addresses.dedup();
        ensure!(addresses.len() == 1, "twenty starts have {} shims", addresses.len());
        for life in &mut lives {
            execute::delete(&stage.daemon, &stage.binary, life.bundle()).await?;
            life.discard()?;
        }
    }
    Ok(())
}

/// Lives side by side, each with its Shutdown: whenever nobody is there the shim goes, and whoever
/// comes just then has to get another.
async fn churn(stage: Arc<Stage>) -> Result<()> {
    let mut workers = JoinSet::new();
    for _ in 0..4 {
        let stage = Arc::clone(&stage);
        workers.spawn(async move {
            for _ in 0..15 {
                let mut life = running(&stage).await?;
                life.go(&stage, Step::Delete).await?;
                life.clean_up(&stage).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(worker) = workers.join_next().await {
        worker??;
    }
    Ok(())
}

/// The shim is killed when its containers are in every state.
async fn kill_twenty(stage: Arc<Stage>) -> Result<()> {
    let mut lives = Vec::new();
    for number in 0..20 {
        let prints = if number % 2 == 0 { Prints::Much } else { Prints::Nothing };
        let mut life = Life::new(&stage, prints)?;
        let id = life.id.clone();
        match number / 2 % 5 {
            0 => until(&stage, &mut life, Step::Bootstrap).await?,
            1 => until(&stage, &mut life, Step::Create).await?,
            2 => {
                life.reader.pause();
                until(&stage, &mut life, Step::Start).await?;
            }
            3 => {
                until(&stage, &mut life, Step::Start).await?;
                life.task()?.pause(&PauseRequest { id, ..Default::default() }).await?;
            }
            _ => {
                until(&stage, &mut life, Step::Start).await?;
                let request = KillRequest { id, signal: 9, ..Default::default() };
                life.task()?.kill(&request).await?;
            }
        }
        lives.push(life);
    }
    let shim = lives[0].shim.context("the shim is not known")?;
    ensure!(lives.iter().all(|life| life.shim == Some(shim)), "there are more shims");
    procs::signal(shim, Signal::SIGKILL)?;
    wait::until("the shim's end", SOON, || {
        ensure!(!procs::runs(shim), "it runs");
        Ok(())
    })?;
    // The next one comes while the old ones are not cleaned up.
    let mut next = running(&stage).await?;
    ensure!(next.shim != Some(shim), "the dead shim is found");
    for life in &mut lives {
        life.clean_up(&stage).await.with_context(|| life.id.clone())?;
        if let Some(init) = life.init {
            ensure!(!procs::runs(init), "{} is left", life.id);
        }
    }
    ensure!(next.is_served().await, "the new shim went with the old one's containers");
    next.exec("probe").await?;
    next.clean_up(&stage).await
}

/// Two hundred live at once in a shim that was given 256 descriptors, and leave no trace in it.
async fn come_and_go(stage: Arc<Stage>) -> Result<()> {
    const GIVEN: u64 = 256;
    let own = getrlimit(Resource::Nofile);
    // Their fifos are read by this process.
    setrlimit(Resource::Nofile, Rlimit { current: own.maximum, ..own })?;
    let mut first = unlimited(&stage)?;
    first.program = given(&first, &stage, GIVEN)?;
    until(&stage, &mut first, Step::Start).await?;
    first.find_shim();
    let shim = first.shim.context("the shim is not known")?;
    // What the shim needs for each step, it needs once.
    let mut second = running(&stage).await?;
    second.go(&stage, Step::Exec).await?;
    second.go(&stage, Step::Delete).await?;
    second.clean_up(&stage).await?;
    let one = at_rest(shim)?;
    for _ in 0..2 {
        let mut lives = Vec::new();
        for _ in 1..200 {
            lives.push(running(&stage).await?);
        }
        let held = Sample::of(shim)?.fds;
        ensure!(held > GIVEN, "it holds {held} descriptors, and had to do with as many before");
        for life in lives.iter().step_by(20).chain([&first]) {
            ensure!(life.shim == Some(shim), "{} has another shim", life.id);
            life.exec("probe").await?;
            let found = limit(life.init.context("no first process")?)?;
            ensure!(found == GIVEN.to_string(), "a container may have {found} descriptors");
        }
        for life in &mut lives {
            life.go(&stage, Step::Delete).await?;
            life.clean_up(&stage).await?;
        }
        // Memory is given back a moment later.
        wait::until("what the first one alone needs", SOON, || {
            let now = Sample::of(shim)?;
            ensure!(now.fds == one.fds, "of {} descriptors {} stay", one.fds, now.fds);
            ensure!(now.dirty <= one.dirty + KEPT, "{} KiB, then {}", one.dirty, now.dirty);
            Ok(())
        })?;
    }
    first.clean_up(&stage).await
}

/// A program that executes the shim with so many descriptors.
fn given(life: &Life, stage: &Stage, descriptors: u64) -> Result<ShimBinary> {
    use std::os::unix::fs::PermissionsExt;
    let path = life.folder.join("containerd-shim-native-v2");
    let shim = stage.binary.path().display();
    fs::write(&path, format!("#!/bin/sh\nulimit -Sn {descriptors}\nexec {shim} \"$@\"\n"))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    ShimBinary::resolve(path.to_str().context("a path that is not UTF-8")?)
}

/// The soft limit of a process's descriptors.
fn limit(pid: i32) -> Result<String> {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let word = line.and_then(|line| line.split_whitespace().next());
    word.map(str::to_owned).context("no limit of files")
}

/// What a process holds once nothing moves any more.
fn at_rest(pid: i32) -> Result<Sample> {
    let (mut last, mut same) = (None, 0);
    wait::until("a shim at rest", SOON, || {
        let held = Sample::of(pid)?;
        same = if last == Some(held) { same + 1 } else { 0 };
        last = Some(held);
        ensure!(same >= 4, "it moves: {held:?}");
        Ok(held)
    })
}

/// Everything that one container can do to others, at once; and lives beside it.
async fn disturb(stage: Arc<Stage>) -> Result<()> {
    let mut trouble = Trouble::make(&stage).await?;
    let mut worst = Duration::ZERO;
    let lived = async {
        for _ in 0..10 {
            let begun = Instant::now();
            let mut life = running(&stage).await?;
            life.go(&stage, Step::Exec).await?;
            life.go(&stage, Step::Delete).await?;
            worst = worst.max(begun.elapsed());
            life.clean_up(&stage).await?;
        }
        anyhow::Ok(())
    }
    .await;
    let over = trouble.end(&stage).await;
    lived?;
    over?;
    ensure!(worst < UNDISTURBED, "a life took {worst:?} beside the others");
    Ok(())
}
