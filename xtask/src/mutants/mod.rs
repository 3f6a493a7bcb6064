//! `cargo xtask mutants`: takes each check out that closes a class of holes, in a copy of the tree, and
//! sees that the class's tests notice.
//!
//! `xtask/mutants.toml` lists the classes. `cargo xtask mutants CLASS..` tries some of them and writes
//! nothing; without a class it tries all and writes docs/security.md.

mod copy;
mod list;
mod page;
mod test;

use std::{fs, process::ExitCode};

use anyhow::{Context, Result, bail, ensure};

use self::{
    copy::Copy,
    list::{Class, Mutant},
    test::Test,
};
use crate::sh;

const PAGE: &str = "docs/security.md";

/// What a test said without the check.
struct Noticed {
    test: Test,
    how: String,
}

/// A mutant that all its tests have noticed.
struct Tried<'a> {
    class: &'a Class,
    mutant: &'a Mutant,
    noticed: Vec<Noticed>,
}

/// Tries the mutants of these classes, or all.
pub(crate) fn mutants(chosen: &[&str]) -> Result<ExitCode> {
    let classes = list::read()?;
    if let Some(unknown) = chosen.iter().find(|name| !classes.iter().any(|one| one.name == **name))
    {
        bail!("no class {unknown:?}: choose of {:?}", list::names(&classes));
    }
    let is_chosen = |class: &&Class| chosen.is_empty() || chosen.contains(&class.name.as_str());
    let copy = Copy::make()?;
    let mut tried = Vec::new();
    let mut unnoticed = Vec::new();
    for class in classes.iter().filter(is_chosen) {
        // A test that fails with the check says nothing when it fails without.
        for test in class.tests()? {
            test.build(&copy)?;
            ensure!(test.run(&copy)?.passed, "{test} fails as it is, or does not exist");
        }
        for mutant in &class.mutants {
            match attempt(&copy, class, mutant)? {
                Ok(one) => tried.push(one),
                Err(test) => unnoticed.push(format!("{}: {} ({test})", class.name, mutant.check)),
            }
        }
    }
    ensure!(unnoticed.is_empty(), "nobody noticed:\n  {}", unnoticed.join("\n  "));
    if chosen.is_empty() {
        let path = sh::root().join(PAGE);
        fs::write(&path, page::write(&classes, &tried)?)
            .with_context(|| format!("write {PAGE}"))?;
        println!("wrote {PAGE}");
    }
    Ok(ExitCode::SUCCESS)
}

/// Takes a check out for as long as its tests run; the test that did not notice, if there is one.
fn attempt<'a>(
    copy: &Copy,
    class: &'a Class,
    mutant: &'a Mutant,
) -> Result<Result<Tried<'a>, Test>> {
    println!("== {}: {}", class.name, mutant.check);
    let mutated = copy.mutate(mutant)?;
    let mut noticed = Vec::new();
    for test in mutant.tests()? {
        // What does not compile proves nothing.
        test.build(copy)?;
        let ended = test.run(copy)?;
        println!("   {test}: {}", ended.how);
        if ended.passed {
            return Ok(Err(test));
        }
        noticed.push(Noticed { test, how: ended.how });
    }
    mutated.restore()?;
    Ok(Ok(Tried { class, mutant, noticed }))
}
