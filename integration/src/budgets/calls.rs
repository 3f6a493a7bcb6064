//! How many system calls each operation takes, of the shim, the stem and the processes it makes.

use anyhow::Result;

use super::limits::{self, Budget};
use super::strace::{Trace, Tracer};
use super::subject::{Pair, Subject};
use super::tally::{Tally, say};
use crate::faults::stage::Stage;
use crate::runner::Skip;

const GROUP: &str = "calls";

/// How many of each: beginning and end of the counting have to vanish among them.
const OPERATIONS: u64 = 20;

/// The containers of one shim go through each operation one after the other.
pub(super) async fn measure(stage: &Stage, tally: &mut Tally, shows: bool) -> Result<()> {
    let mut first = Subject::new(stage, Some(GROUP))?;
    first.begin(stage).await?;
    let pair = first.pair()?;
    let measured = match Tracer::find().and_then(|tracer| allowed(&tracer, pair).map(|()| tracer)) {
        Ok(tracer) => Box::pin(crowd(stage, &Sheet { tracer, pair, shows }, tally)).await,
        Err(error) if error.is::<Skip>() => {
            limits::CALLS.iter().for_each(|budget| tally.skip(budget, &error.to_string()));
            Ok(())
        }
        Err(error) => Err(error),
    };
    measured.and(first.clean_up(stage).await)
}

/// Whether anything can be traced here.
fn allowed(tracer: &Tracer, pair: Pair) -> Result<()> {
    tracer.attach(pair)?.give_up().map(drop)
}

async fn crowd(stage: &Stage, sheet: &Sheet, tally: &mut Tally) -> Result<()> {
    let mut crowd = Vec::new();
    for _ in 0..OPERATIONS {
        let mut subject = Subject::new(stage, Some(GROUP))?;
        subject.begin(stage).await?;
        crowd.push(subject);
    }
    let trace = sheet.attach()?;
    for subject in &crowd {
        subject.create(stage).await?;
    }
    sheet.note(trace, &limits::CALLS_CREATE, tally)?;

    let trace = sheet.attach()?;
    for subject in &mut crowd {
        subject.start().await?;
    }
    sheet.note(trace, &limits::CALLS_START, tally)?;

    let trace = sheet.attach()?;
    for subject in &mut crowd {
        subject.exec().await?;
        subject.delete_exec().await?;
    }
    sheet.note(trace, &limits::CALLS_EXEC, tally)?;

    let trace = sheet.attach()?;
    for subject in &mut crowd {
        subject.kill().await?;
    }
    sheet.note(trace, &limits::CALLS_KILL, tally)?;

    let trace = sheet.attach()?;
    for subject in &crowd {
        subject.delete().await?;
    }
    sheet.note(trace, &limits::CALLS_DELETE, tally)?;
    for subject in crowd {
        subject.clean_up(stage).await?;
    }
    Ok(())
}

/// Whom to trace, and what to print.
struct Sheet {
    tracer: Tracer,
    pair: Pair,
    /// Whether each system call's share is printed, even if there is nothing wrong.
    shows: bool,
}

impl Sheet {
    fn attach(&self) -> Result<Trace> {
        self.tracer.attach(self.pair)
    }

    fn note(&self, trace: Trace, budget: &Budget, tally: &mut Tally) -> Result<()> {
        let calls = trace.detach()?;
        let within = tally.judge(budget, calls.total().div_ceil(OPERATIONS));
        if self.shows || !within {
            say(&format!("    {}", calls.table(OPERATIONS)));
        }
        Ok(())
    }
}
