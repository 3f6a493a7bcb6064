//! One round: a life with a fault in it, and the judgement.
//!
//! - Every call answers, or fails, within its bound; only what waits for a stopped victim may wait
//!   until that goes on or is killed.
//! - What does no harm leaves no trace: the life goes on to its end.
//! - A shim that lives makes a fresh container afterwards.
//! - Its end is told once, as that of a killed process.
//! - The user's cleaning up takes at most five seconds, and nothing is left.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use tokio::time::timeout;

use super::after::{LEFT, fresh, nothing_left};
use super::calls::Hang;
use super::hold::Hold;
use super::life::{Life, Prints};
use super::matrix::{Blow, Cell, Fault, Step, Victim, Want};
use super::role::Role;
use super::stage::Stage;
use super::strike::{self, NO_PROCESS, Strike};
use super::tap::Tap;
use crate::leaks::Snapshot;
use crate::runner::Skip;
use crate::{procs, wait};

/// How long a step is given to end while its victim stands still.
const PATIENCE: Duration = Duration::from_millis(150);

/// How long an event may be on its way.
const NEWS: Duration = Duration::from_secs(5);

/// What a process killed by SIGKILL ends with.
const KILLED: u32 = 137;

/// Which of a cell's rounds it is.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    /// Its number, from zero.
    pub number: u32,
    /// How many there are.
    pub of: u32,
    /// How long the step takes undisturbed.
    pub usual: Duration,
}

impl Turn {
    /// When the blow comes: from the step's first moment to its last.
    fn delay(self) -> Duration {
        self.usual * self.number / (self.of.max(2) - 1)
    }

    /// What becomes of a stopped process: every other one goes on.
    fn lift(self) -> Lift {
        if self.number.is_multiple_of(2) { Lift::GoOn } else { Lift::Kill }
    }
}

/// What becomes of a stopped process in the end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Lift {
    GoOn,
    Kill,
}

/// What there is to hear for want of descriptors, EMFILE.
const SHORT: &str = "Too many open files";

/// How a step went, as far as the daemon that asked for it got to know.
#[derive(Debug)]
enum Outcome {
    Answered(Result<()>),
    /// The daemon died before.
    Unknown,
}

/// Plays a life without a fault, and returns how long the step took.
///
/// # Errors
/// When anything goes wrong: then no cell of this step says anything.
pub async fn unharmed(stage: &mut Stage, step: Step) -> Result<Duration> {
    let before = Snapshot::take(&stage.mark)?;
    let mut life = Life::new(stage, Prints::Nothing)?;
    let played = async {
        let mut took = Duration::ZERO;
        for next in Step::ALL {
            let begun = Instant::now();
            life.go(stage, next).await?;
            if next == step {
                took = begun.elapsed();
            }
        }
        fresh(stage, &life).await?;
        Ok(took)
    };
    let played: Result<Duration> = played.await;
    let cleaned = life.clean_up(stage).await;
    let left = nothing_left(stage, &before).await;
    let took = played?;
    cleaned.and(left).map(|()| took)
}

/// Plays a round of a cell, and returns whether the fault came inside the step.
///
/// # Errors
/// Everything that is not as it has to be.
pub async fn play(stage: &mut Stage, cell: Cell, turn: Turn) -> Result<bool> {
    let before = Snapshot::take(&stage.mark)?;
    let prints = match cell.fault {
        Fault::Blow(Victim::Reader, _) => Prints::Much,
        _ => Prints::Nothing,
    };
    let mut life = Life::new(stage, prints)?;
    let mut round = Round { cell, turn, hold: None, shim_lived: false };
    let played = round.play(stage, &mut life).await;
    if played.as_ref().is_err_and(anyhow::Error::is::<Skip>) {
        life.clean_up(stage).await?;
        return played;
    }
    let cleaned = life.clean_up(stage).await.context("clean up");
    let told = round.judge_exits(stage, &life);
    let removed = round.hold.take().map_or(Ok(()), Hold::remove);
    let left = nothing_left(stage, &before).await;
    let wrong: Vec<String> = [played.as_ref().err(), cleaned.as_ref().err()]
        .into_iter()
        .chain([told.as_ref().err(), removed.as_ref().err(), left.as_ref().err()])
        .flatten()
        .map(|error| format!("{error:#}"))
        .collect();
    if !wrong.is_empty() {
        let log = life.logger.text();
        bail!("round {} of {}: {}\n{log}", turn.number + 1, turn.of, wrong.join("; "));
    }
    played
}

struct Round {
    cell: Cell,
    turn: Turn,
    hold: Option<Hold>,
    shim_lived: bool,
}

impl Round {
    async fn play(&mut self, stage: &mut Stage, life: &mut Life) -> Result<bool> {
        let step = self.cell.step;
        for earlier in Step::ALL.into_iter().take_while(|earlier| *earlier < step) {
            life.go(stage, earlier).await.context("before the fault")?;
        }
        let (outcome, inside) = match self.cell.fault {
            Fault::Blow(victim, blow) => self.hit(stage, life, victim, blow).await?,
            Fault::Want(want) => (self.starve(stage, life, want).await?, true),
        };
        if let Outcome::Answered(Err(error)) = outcome {
            ensure!(!error.is::<Hang>(), "{error:#}");
            ensure!(!self.is_harmless(), "{error:#}, without reason");
        }
        life.find_shim();
        self.look_after(stage, life).await?;
        Ok(inside)
    }

    /// Whether the step has to succeed.
    fn is_harmless(&self) -> bool {
        let ends = matches!(
            self.cell.fault,
            Fault::Blow(Victim::Shim | Victim::Stem | Victim::Container, Blow::Stop)
        );
        self.cell.fault.is_harmless() && !(ends && self.turn.lift() == Lift::Kill)
    }

    async fn starve(&mut self, stage: &Stage, life: &mut Life, want: Want) -> Result<Outcome> {
        let hold = Hold::begin(want, stage, life, self.turn.number)?;
        let hold = self.hold.insert(hold);
        let done = life.go(stage, self.cell.step).await;
        hold.lift()?;
        Ok(Outcome::Answered(done))
    }

    /// Deals the blow while the step goes on, and undoes it.
    async fn hit(
        &self,
        stage: &mut Stage,
        life: &mut Life,
        victim: Victim,
        blow: Blow,
    ) -> Result<(Outcome, bool)> {
        let mut strike = Strike::after(self.turn.delay(), self.blow(stage, life, victim, blow));
        let mut step = Box::pin(life.go(stage, self.cell.step));
        let (mut done, mut hit) = (None, None);
        tokio::select! {
            answered = &mut step => done = Some(answered),
            Ok(victim) = &mut strike.landed => hit = Some(victim),
        }
        let dies = (victim, blow) == (Victim::Daemon, Blow::Kill);
        if done.is_none() && !dies {
            let stands = blow == Blow::Stop && is_process_of_shim(victim);
            if stands {
                done = timeout(PATIENCE, &mut step).await.ok();
            }
            done = match (done, hit) {
                (None, Some(pid)) if stands => {
                    self.lift_process(pid)?;
                    Some(step.as_mut().await)
                }
                (None, _) => Some(step.as_mut().await),
                (done, _) => done,
            };
        }
        drop(step);
        let landed = strike.finish()?;
        let hit = landed.map(|landed| landed.victim);
        self.lift(stage, life, (victim, blow), hit).await?;
        self.wait_dead((victim, blow), hit)?;
        let outcome = done.map_or(Outcome::Unknown, Outcome::Answered);
        Ok((outcome, landed.is_some_and(|landed| landed.is_inside)))
    }

    /// What is done at the moment of the blow.
    fn blow(&self, stage: &Stage, life: &Life, victim: Victim, blow: Blow) -> strike::Blow {
        let signal = if blow == Blow::Kill { Signal::SIGKILL } else { Signal::SIGSTOP };
        let (id, shim, stem, init) = (life.id.clone(), life.shim, life.stem, life.init);
        let wanted =
            if self.turn.number.is_multiple_of(2) { Role::Serving } else { Role::Starting };
        let ear = stage.ear.pid();
        let find: Box<dyn Fn() -> Option<i32> + Send> = match victim {
            Victim::Shim => Box::new(move || shim.or_else(|| strike::starting(&id, wanted))),
            Victim::Stem => Box::new(move || stem.or_else(|| strike::stem(&id))),
            Victim::Container => {
                Box::new(move || init.or_else(|| shim.and_then(|shim| strike::child(shim, stem))))
            }
            Victim::Daemon => Box::new(move || Some(ear)),
            Victim::Logger => return tap_blow(&life.logger, blow, Tap::clog),
            Victim::Reader => {
                return tap_blow(&life.reader, blow, |tap| {
                    tap.pause();
                    Ok(())
                });
            }
        };
        Box::new(move || {
            // One that has just ended is no victim any more.
            Ok(find().filter(|pid| procs::signal(*pid, signal).is_ok()))
        })
    }

    /// Ends the standstill of a process, one way or the other.
    fn lift_process(&self, pid: i32) -> Result<()> {
        match self.turn.lift() {
            Lift::GoOn => procs::signal(pid, Signal::SIGCONT),
            Lift::Kill => procs::signal(pid, Signal::SIGKILL),
        }
    }

    /// Waits until a process that was sent SIGKILL is gone: until then it may seem to live.
    fn wait_dead(&self, (victim, blow): (Victim, Blow), hit: Option<i32>) -> Result<()> {
        let killed = blow == Blow::Kill || self.turn.lift() == Lift::Kill;
        let Some(pid) = hit.filter(|_| killed && is_process_of_shim(victim)) else { return Ok(()) };
        wait::until("the end of the killed process", LEFT, || {
            ensure!(!procs::runs(pid), "{pid} runs");
            Ok(())
        })
    }

    /// Undoes the blow, if that has not been done.
    async fn lift(
        &self,
        stage: &mut Stage,
        life: &mut Life,
        dealt: (Victim, Blow),
        hit: Option<i32>,
    ) -> Result<()> {
        match dealt {
            (Victim::Daemon, Blow::Kill) => {
                life.hang_up();
                stage.ear.restart()?;
                if life.is_known() {
                    life.connect(stage).await?;
                }
            }
            (Victim::Daemon, Blow::Stop) => stage.ear.go_on()?,
            (Victim::Logger, Blow::Kill) => life.logger.reopen()?,
            (Victim::Logger, Blow::Stop) => life.logger.resume(),
            (Victim::Reader, Blow::Kill) => life.reader.reopen()?,
            (Victim::Reader, Blow::Stop) => life.reader.resume(),
            (_, Blow::Kill) => {}
            (_, Blow::Stop) => {
                // It may be gone by now.
                let _ = hit.filter(|pid| *pid != NO_PROCESS).map(|pid| self.lift_process(pid));
            }
        }
        Ok(())
    }

    /// What has to hold once the fault is over.
    async fn look_after(&mut self, stage: &Stage, life: &mut Life) -> Result<()> {
        let step = self.cell.step;
        let runs = life.shim.is_some_and(procs::runs);
        let may_die = match self.cell.fault {
            Fault::Blow(Victim::Shim, _) | Fault::Want(Want::Memory) => true,
            _ => step == Step::Bootstrap,
        };
        ensure!(runs || (may_die && !self.is_harmless()), "the shim has died");
        if !runs || !life.is_connected() {
            return Ok(());
        }
        self.shim_lived = life.is_served().await;
        ensure!(self.shim_lived || may_die, "the shim does not answer");
        if !self.shim_lived {
            return Ok(());
        }
        if self.is_harmless() {
            if life.prints() && step < Step::Delete {
                if step < Step::Start {
                    life.go(stage, Step::Start).await.context("afterwards")?;
                }
                life.printed_all().await?;
            }
            let reached = step.max(life.reached());
            for later in Step::ALL.into_iter().filter(|later| *later > reached) {
                life.go(stage, later).await.context("afterwards")?;
            }
        }
        let made = fresh(stage, life).await.context("a fresh container in the same shim");
        if made.is_err() && may_die && !life.is_served().await {
            // The kernel's killer was on its way.
            self.shim_lived = false;
            return Ok(());
        }
        match made {
            Err(err) if self.lasts() && format!("{err:#}").contains(SHORT) => Ok(()),
            made => made,
        }
    }

    /// Whether the fault can't be undone: a shim that was executed with few descriptors may not have
    /// more without CAP_SYS_RESOURCE (setrlimit(2)). It has to say so then, and to end in good order.
    fn lasts(&self) -> bool {
        self.cell.fault == Fault::Want(Want::Descriptors) && self.cell.step == Step::Bootstrap
    }

    /// The end of the container, as it was told: once, and as a killed process's.
    fn judge_exits(&self, stage: &Stage, life: &Life) -> Result<()> {
        if !self.shim_lived || life.init.is_none() {
            return Ok(());
        }
        let dies = matches!(self.cell.fault, Fault::Blow(Victim::Daemon, Blow::Kill));
        if dies && self.cell.step == Step::Delete {
            // It may have died with the event in its hands, whether it had confirmed it or not.
            return Ok(());
        }
        let exits = stage.ear.expect_exit(&life.id, NEWS)?;
        ensure!(exits.iter().all(|exit| *exit == u64::from(KILLED)), "told exits: {exits:?}");
        ensure!(exits.len() == 1, "the exit was told {} times", exits.len());
        ensure!(life.exit.is_none_or(|exit| exit == KILLED), "wait tells {:?}", life.exit);
        Ok(())
    }
}

fn is_process_of_shim(victim: Victim) -> bool {
    matches!(victim, Victim::Shim | Victim::Stem | Victim::Container)
}

/// A blow at a reader in this process.
fn tap_blow(tap: &Tap, blow: Blow, stop: fn(&Tap) -> Result<()>) -> strike::Blow {
    let tap = tap.clone();
    Box::new(move || {
        match blow {
            Blow::Kill => tap.close(),
            Blow::Stop => stop(&tap)?,
        }
        Ok(Some(NO_PROCESS))
    })
}
