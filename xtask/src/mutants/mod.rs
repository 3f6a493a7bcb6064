//! `cargo xtask mutants`: takes each check out that closes a class of holes, in a copy of the tree, and
//! sees that the class's tests notice.
//!
//! `xtask/mutants.toml` lists the classes; `cargo xtask mutants CLASS..` tries some of them, and `missing`
//! goes on where a run of all was cut short: what was found is kept beside the copy. Each result goes into
//! docs/security.md.

mod copy;
mod list;
mod page;
mod test;

use std::{collections::BTreeMap, fs, process::ExitCode};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use self::{copy::Copy, list::Mutant, test::Test};
use crate::sh;

const PAGE: &str = "docs/security.md";

/// What a test said without a check.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Noticed {
    test: String,
    how: String,
}

/// What was found, by class and check.
type Found = BTreeMap<String, Vec<Noticed>>;

/// Tries the mutants of these classes, or all; with `missing` those of which nothing is known yet.
pub(crate) fn mutants(chosen: &[&str]) -> Result<ExitCode> {
    let classes = list::read()?;
    let only_missing = chosen == ["missing"];
    let chosen = if only_missing { &[] } else { chosen };
    if let Some(unknown) = chosen.iter().find(|name| !classes.iter().any(|one| one.name == **name))
    {
        bail!("no class {unknown:?}: choose of {:?}", list::names(&classes));
    }
    let copy = Copy::make()?;
    let kept = copy.folder().join("found.json");
    let mut found: Found = match fs::read(&kept) {
        Ok(text) => {
            serde_json::from_slice(&text).with_context(|| format!("parse {}", kept.display()))?
        }
        Err(_) => Found::new(),
    };
    let mut wanted = Vec::new();
    for class in &classes {
        let is_chosen = chosen.is_empty() || chosen.contains(&class.name.as_str());
        let mutants = class.mutants.iter().filter(|_| is_chosen);
        let all = mutants.map(|mutant| (class.key(mutant), mutant));
        wanted.extend(all.filter(|(key, _)| !(only_missing && found.contains_key(key))));
    }
    if !only_missing {
        try_as_it_is(&copy, &wanted)?;
    }
    let mut unnoticed = Vec::new();
    for (key, mutant) in wanted {
        println!("== {key}");
        let noticed = attempt(&copy, mutant)?;
        let passed = noticed.iter().filter(|one| one.how == test::PASSES);
        unnoticed.extend(passed.map(|one| format!("{key}: {}", one.test)));
        found.insert(key, noticed);
        fs::write(&kept, serde_json::to_vec(&found)?)?;
        // At once: it takes an hour, and may be cut short.
        let page = page::write(&classes, &found)?;
        fs::write(sh::root().join(PAGE), page).with_context(|| format!("write {PAGE}"))?;
    }
    ensure!(unnoticed.is_empty(), "not noticed:\n  {}", unnoticed.join("\n  "));
    Ok(ExitCode::SUCCESS)
}

/// A test that fails with the check says nothing when it fails without.
fn try_as_it_is(copy: &Copy, wanted: &[(String, &Mutant)]) -> Result<()> {
    let mut tried: Vec<Test> = Vec::new();
    for (_, mutant) in wanted {
        for test in mutant.tests()? {
            if !tried.contains(&test) {
                test.build(copy)?;
                let ended = test.run(copy)?;
                println!("   {test}: {}", ended.how);
                ensure!(ended.passed, "{test} fails as it is, or does not exist");
                tried.push(test);
            }
        }
    }
    Ok(())
}

/// Takes a check out for as long as its tests run.
fn attempt(copy: &Copy, mutant: &Mutant) -> Result<Vec<Noticed>> {
    let mutated = copy.mutate(mutant)?;
    let mut noticed = Vec::new();
    for test in mutant.tests()? {
        // What does not compile proves nothing.
        test.build(copy)?;
        let how = test.run(copy)?.how;
        println!("   {test}: {how}");
        noticed.push(Noticed { test: test.to_string(), how });
    }
    mutated.restore()?;
    Ok(noticed)
}
