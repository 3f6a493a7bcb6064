//! How many processes and threads each operation makes.
//!
//! A lane's pid namespace gives its numbers one after the other, to threads and to the processes of
//! namespaces inside it, too. So the difference of the last number given, before and after, is
//! everything that was made in between, however short it lived.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, ensure};
use shim_client::runtime_options;
use shim_protos::Any;

use super::limits::{self, Budget};
use super::subject::Subject;
use super::tally::Tally;
use crate::faults::stage::Stage;

/// How many lives are counted; the worst is judged.
const LIVES: u32 = 5;

/// Some lives with a shim of their own, and a container that joins a shim.
pub(super) async fn measure(stage: &mut Stage, tally: &mut Tally) -> Result<()> {
    let mut made = Made::default();
    for _ in 0..LIVES {
        let before = last_pid()?;
        life(stage, &mut made).await?;
        made.note(&limits::MADE_BY_A_LIFE, last_pid()? - before);
        joining(stage, &mut made).await?;
    }
    stage.options = many(stage)?;
    let counted = one_of_many(stage, &mut made).await;
    stage.options = None;
    counted?;
    for budget in &limits::PROCESSES {
        let found = made.0.get(budget.name).context("a budget that nobody has measured")?;
        tally.judge(budget, *found);
    }
    Ok(())
}

async fn life(stage: &Stage, made: &mut Made) -> Result<()> {
    let mut subject = Subject::new(stage, None)?;
    let created = async {
        subject.begin(stage).await?;
        subject.create(stage).await
    };
    made.by(&limits::MADE_UP_TO_CREATE, created).await?;
    made.by(&limits::MADE_BY_START, subject.start()).await?;
    made.by(&limits::MADE_BY_EXEC, subject.exec()).await?;
    made.by(&limits::MADE_BY_DELETE_OF_EXEC, subject.delete_exec()).await?;
    made.by(&limits::MADE_BY_KILL, subject.kill()).await?;
    made.by(&limits::MADE_BY_DELETE, subject.delete()).await?;
    subject.shut_down().await?;
    made.by(&limits::MADE_BY_ACTION_DELETE, subject.action_delete(stage)).await?;
    subject.discard()
}

/// `start` of a container whose group has a shim. It is never created.
async fn joining(stage: &Stage, made: &mut Made) -> Result<()> {
    const GROUP: &str = "processes";
    let mut first = Subject::new(stage, Some(GROUP))?;
    first.begin(stage).await?;
    first.run(stage).await?;
    let second = Subject::new(stage, Some(GROUP))?;
    made.by(&limits::MADE_BY_JOINING_START, second.action_start(stage)).await?;
    second.action_delete(stage).await?;
    second.discard()?;
    first.end(stage).await
}

/// The options by which a namespace shares a shim.
pub(super) fn many(stage: &Stage) -> Result<Option<Any>> {
    runtime_options(&stage.binary, &[("Grouping".to_owned(), "namespace".to_owned())])
}

/// From `start` to a running program, in the shim of a namespace.
async fn one_of_many(stage: &Stage, made: &mut Made) -> Result<()> {
    let mut first = Subject::new(stage, None)?;
    first.begin(stage).await?;
    first.run(stage).await?;
    let mut second = Subject::new(stage, None)?;
    let lived = async {
        second.begin(stage).await?;
        second.run(stage).await
    };
    made.by(&limits::MADE_BY_ONE_OF_MANY, lived).await?;
    second.end(stage).await?;
    first.end(stage).await
}

/// The most that each operation has made.
#[derive(Debug, Default)]
struct Made(BTreeMap<&'static str, u64>);

impl Made {
    async fn by<T>(&mut self, budget: &Budget, call: impl Future<Output = Result<T>>) -> Result<T> {
        let before = last_pid()?;
        let done = call.await.context(budget.name)?;
        self.note(budget, last_pid()? - before);
        Ok(done)
    }

    fn note(&mut self, budget: &Budget, made: u64) {
        let most = self.0.entry(budget.name).or_default();
        *most = made.max(*most);
    }
}

/// The last number that this pid namespace has given (proc(5), loadavg).
fn last_pid() -> Result<u64> {
    let text = fs::read_to_string("/proc/loadavg").context("read /proc/loadavg")?;
    let last = text.split_whitespace().next_back().context("/proc/loadavg is empty")?;
    let last = last.parse().with_context(|| format!("a pid in {text:?}"))?;
    ensure!(last > 1, "{text:?} is of another pid namespace");
    Ok(last)
}
