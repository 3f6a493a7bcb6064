//! What a shim holds while its containers do nothing: memory, threads, descriptors.

use std::fs;

use anyhow::{Context, Result, ensure};

use super::binary::Judged;
use super::limits::{self, Budget};
use super::run::DEBUG;
use super::subject::{Pair, Subject};
use super::tally::Tally;
use crate::faults::stage::Stage;
use crate::soak::sample::Sample;
use crate::wait::{self, SOON};

const GROUP: &str = "memory";

/// Over so many further containers one container's cost is averaged: memory comes in pages.
const MORE: u64 = 10;

/// How many looks in a row have to see the same until a shim counts as being at rest.
const IN_A_ROW: u32 = 4;

/// One shim with one container, and then with more.
pub(super) async fn measure(stage: &Stage, is_release: bool, tally: &mut Tally) -> Result<()> {
    let mut weigh = |budget: &Budget, found: Result<u64>| match found {
        _ if !is_release => tally.skip(budget, DEBUG),
        Ok(found) => drop(tally.judge(budget, found)),
        Err(why) => tally.skip(budget, &why.to_string()),
    };
    weigh(&limits::SIZE, Ok(Judged::size(stage.binary.path())?));
    let mut first = Subject::new(stage, Some(GROUP))?;
    first.begin(stage).await?;
    first.run(stage).await?;
    let pair = first.pair()?;
    let one = at_rest(pair)?;
    ensure!(one.dirty() > 0, "this kernel does not tell what memory is private");
    weigh(&limits::DIRTY, Ok(one.dirty()));
    let (shim, stem) = (Shares::of(pair.shim)?, Shares::of(pair.stem)?);
    let dirty = shim.dirty.zip(stem.dirty).map(|(shim, stem)| shim + stem);
    weigh(&limits::DIRTY_BOTH, dirty.context("no Pss_Dirty: Linux 6.0 is too old"));
    weigh(&limits::PSS, shim.own.zip(stem.own).map(|(shim, stem)| shim + stem).context("no Pss"));
    let mut more = Vec::new();
    for _ in 0..MORE {
        let mut subject = Subject::new(stage, Some(GROUP))?;
        subject.begin(stage).await?;
        subject.run(stage).await?;
        more.push(subject);
    }
    let many = at_rest(pair)?;
    let each = |one: u64, many: u64| many.saturating_sub(one).div_ceil(MORE);
    weigh(&limits::DIRTY_MORE, Ok(each(one.dirty(), many.dirty())));
    tally.judge(&limits::THREADS_SHIM, many.shim.threads);
    tally.judge(&limits::THREADS_STEM, many.stem.threads);
    tally.judge(&limits::FILES, one.shim.fds);
    tally.judge(&limits::FILES_MORE, each(one.shim.fds, many.shim.fds));
    tally.judge(&limits::FILES_STEM, many.stem.fds);
    for subject in more {
        subject.end(stage).await?;
    }
    first.end(stage).await
}

/// One container of a namespace that shares a shim, and then more; what one more costs.
pub(super) async fn measure_many(stage: &Stage, is_release: bool, tally: &mut Tally) -> Result<()> {
    let mut subjects = Vec::new();
    let mut held = Vec::new();
    for count in [1, MORE] {
        for _ in 0..count {
            let mut subject = Subject::new(stage, None)?;
            subject.begin(stage).await?;
            subject.run(stage).await?;
            subjects.push(subject);
        }
        held.push(at_rest(subjects[0].pair()?)?.dirty());
    }
    let found = held[1].saturating_sub(held[0]).div_ceil(MORE);
    match is_release {
        true => drop(tally.judge(&limits::DIRTY_MANY, found)),
        false => tally.skip(&limits::DIRTY_MANY, DEBUG),
    }
    for subject in subjects {
        subject.end(stage).await?;
    }
    Ok(())
}

/// Both processes at a moment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Held {
    shim: Sample,
    stem: Sample,
}

impl Held {
    fn dirty(&self) -> u64 {
        self.shim.dirty + self.stem.dirty
    }
}

/// What both hold once nothing moves any more.
fn at_rest(pair: Pair) -> Result<Held> {
    let (mut last, mut same) = (None, 0);
    wait::until("a shim at rest", SOON, || {
        let held = Held { shim: Sample::of(pair.shim)?, stem: Sample::of(pair.stem)? };
        same = if last == Some(held) { same + 1 } else { 0 };
        last = Some(held);
        ensure!(same >= IN_A_ROW, "it moves: {held:?}");
        Ok(held)
    })
}

/// A process's shares of the pages that it has in common with others, in KiB.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Shares {
    /// Of all its pages but those of libraries: how many others use them is the machine's affair.
    own: Option<u64>,
    /// Of those that were written to. Shim and stem have the same ones from before the fork, which
    /// are private to neither. Told since Linux 6.0.
    dirty: Option<u64>,
}

impl Shares {
    fn of(pid: i32) -> Result<Self> {
        let path = format!("/proc/{pid}/smaps");
        Ok(Self::parse(&fs::read_to_string(&path).with_context(|| format!("read {path}"))?))
    }

    /// Reads the lines of each mapping (proc(5)): one that ends in its file's path, then its fields.
    fn parse(smaps: &str) -> Self {
        let (mut shares, mut library) = (Self::default(), false);
        for line in smaps.lines() {
            let mut words = line.split_whitespace();
            let key = words.next().unwrap_or_default();
            if !key.ends_with(':') {
                library = line.rsplit('/').next().is_some_and(|name| name.contains(".so"));
                continue;
            }
            let mut kib = || words.next().and_then(|number| number.parse::<u64>().ok());
            match key {
                "Pss:" if !library => add(&mut shares.own, kib()),
                "Pss_Dirty:" => add(&mut shares.dirty, kib()),
                _ => {}
            }
        }
        shares
    }
}

fn add(sum: &mut Option<u64>, kib: Option<u64>) {
    *sum = kib.map(|kib| sum.unwrap_or_default() + kib).or(*sum);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_count_only_where_they_were_written_to() {
        let smaps = "55d0-7ffe r-xp 00000000 00:1a 77     /usr/bin/containerd-shim-native-v2\n\
                     Rss:  40 kB\nPss:   30 kB\nPss_Dirty: 1 kB\n\
                     7f00-7f10 rw-p 00000000 00:1a 78     /usr/lib/libc.so.6\n\
                     Pss:   500 kB\nPss_Dirty: 8 kB\n\
                     7f20-7f30 rw-p 00000000 00:00 0\nPss:   12 kB\nPss_Dirty: 12 kB\n\
                     VmFlags: rd wr mr\n";
        assert_eq!(Shares::parse(smaps), Shares { own: Some(42), dirty: Some(21) });
        assert_eq!(Shares::parse("55d0-7ffe r-xp 0 0 0\nPss: 3 kB\n").dirty, None);
    }
}
