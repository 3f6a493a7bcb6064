//! `cargo xtask compare-runtimes`: the same bundles through runc, crun and `shim-runc`, and where
//! ours is not like them.
//!
//! A bundle has one concern. What its program sees inside (the probe tells it), what the verbs
//! answer, what the host sees of its cgroup and what is left afterwards are one observation, field by
//! field. A field counts as a difference when ours has a value that no peer has; those that are meant
//! stand in `explained.txt`, each with its reason.
//!
//! All of it happens in a mount namespace of its own, with a tmpfs for each runtime, so that
//! nothing of it stays. The unified hierarchy of a host with both cgroup versions is taken away in
//! there: crun takes no such host when controllers are in it.

mod act;
mod bundle;
mod explain;
mod field;
mod memory;
mod outside;
mod page;
mod place;
mod report;
mod round;
mod sets;
mod streams;
mod subject;
mod terminal;
mod view;

use std::{fs, path::PathBuf, process::ExitCode, thread};

use anyhow::{Context, Result, bail};

use self::{
    bundle::Bundle,
    explain::Explained,
    field::Fields,
    memory::Memory,
    place::{Place, Programs},
    report::Compared,
    subject::Subject,
};
use crate::{build, peers::Peers, sh};

/// Runs all bundles, or those whose name has one of the words, and judges the differences.
///
/// `--check` writes no page and uses what is built for tests; it is skipped where a peer is missing.
/// `--all` prints explained differences, and those between the peers, as well. What the peers answered
/// an earlier run is taken from there while nothing about them has changed, unless `--fresh` is given.
pub(crate) fn compare(arguments: &[&str]) -> Result<ExitCode> {
    let checks = arguments.contains(&"--check");
    let words: Vec<&str> =
        arguments.iter().copied().filter(|word| !word.starts_with("--")).collect();
    let peers = match Peers::fetch_runtimes() {
        Err(missing) if checks => {
            println!("skipped: {missing:#}");
            return Ok(ExitCode::SUCCESS);
        }
        peers => peers?,
    };
    let subjects = Subject::all(&peers, ours(checks)?)?;
    let programs = Programs { probe: build::probe()?, busybox: peers.path("busybox")?.into() };
    let bundles: Vec<Bundle> = sets::all()
        .into_iter()
        .filter(|bundle| {
            let is_called = words.iter().any(|word| bundle.name.contains(word));
            words.is_empty() || is_called || bundle.name == report::PLAIN
        })
        .collect();
    place::part_from_the_host()?;
    let seen = observe(
        &subjects,
        &bundles,
        &programs,
        &Memory::new(&programs, !arguments.contains(&"--fresh"))?,
    )?;
    let mut explained = Explained::read()?;
    let compared = Compared::of(&bundles, &subjects, &seen, &mut explained);
    print!("{}", compared.told(arguments.contains(&"--all")));
    let stale = if words.is_empty() { explained.stale() } else { Vec::new() };
    if words.is_empty() && !checks {
        let path = sh::root().join("docs/compare.md");
        fs::write(&path, page::write(&subjects, &compared, &explained))
            .with_context(|| format!("write {}", path.display()))?;
        println!("wrote {}", path.display());
    }
    for line in &stale {
        println!("explained.txt: nothing differs like this any more: {line}");
    }
    let unexplained = compared.unexplained();
    println!("{} bundles, {unexplained} unexplained differences", bundles.len());
    let is_fine = unexplained == 0 && stale.is_empty();
    Ok(if is_fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Our command line: of the folder that `SHIM_DIR` names, else built.
fn ours(checks: bool) -> Result<PathBuf> {
    match std::env::var_os("SHIM_DIR") {
        Some(folder) => Ok(PathBuf::from(folder).join("shim-runc")),
        None if checks => build::runtime_for_tests(),
        None => build::runtime(),
    }
}

/// What each runtime makes of each bundle. The runtimes work side by side, each in its own place.
fn observe(
    subjects: &[Subject],
    bundles: &[Bundle],
    programs: &Programs,
    memory: &Memory,
) -> Result<Vec<Vec<Fields>>> {
    let whole = place::Whole::new()?;
    thread::scope(|scope| {
        let workers: Vec<_> = subjects
            .iter()
            .map(|subject| {
                let (whole, memory) = (&whole, &memory);
                scope.spawn(move || -> Result<Vec<Fields>> {
                    let mut place = Place::new(whole, subject, programs)?;
                    // Made under our umask, it begins as it has to stay.
                    place.null()?;
                    let one = |bundle: &Bundle| {
                        if let Some(seen) = memory.known(subject, bundle) {
                            return Ok(seen);
                        }
                        let seen = round::play(&mut place, subject, bundle)
                            .with_context(|| format!("{} with {}", bundle.name, subject.name))?;
                        memory.keep(subject, bundle, &seen).map(|()| seen)
                    };
                    bundles.iter().map(one).collect()
                })
            })
            .collect();
        let ended = workers.into_iter().map(thread::ScopedJoinHandle::join);
        ended.map(|seen| seen.unwrap_or_else(|_| bail!("a worker panicked"))).collect()
    })
}
