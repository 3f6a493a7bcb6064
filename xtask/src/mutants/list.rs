//! The classes and their mutants, as `xtask/mutants.toml` has them.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::test::Test;
use crate::sh;

const LIST: &str = "xtask/mutants.toml";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    class: Vec<Class>,
}

/// A class of holes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Class {
    /// What the names of its tests begin with.
    pub(super) name: String,
    /// What goes wrong.
    pub(super) what: String,
    /// Where it did.
    pub(super) known: Vec<String>,
    #[serde(rename = "mutant")]
    pub(super) mutants: Vec<Mutant>,
}

/// A check, and how to do without it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mutant {
    /// What it sees to.
    pub(super) check: String,
    /// The functions that do it.
    pub(super) at: String,
    /// Those that fail without it.
    tests: Vec<String>,
    #[serde(rename = "change")]
    pub(super) changes: Vec<Change>,
}

/// A text that stands in a file exactly once, and what to put in its place.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Change {
    pub(super) file: String,
    from: String,
    to: String,
}

impl Class {
    /// What a mutant of it is known by.
    pub(super) fn key(&self, mutant: &Mutant) -> String {
        format!("{}: {}", self.name, mutant.check)
    }
}

impl Mutant {
    pub(super) fn tests(&self) -> Result<Vec<Test>> {
        self.tests.iter().map(|test| Test::parse(test)).collect()
    }
}

impl Change {
    /// Makes the change in the file's text.
    pub(super) fn apply(&self, text: &str) -> Result<String> {
        let Self { file, from, to } = self;
        let count = text.matches(from.as_str()).count();
        ensure!(count == 1, "{file} has this {count} times, not once:\n{from}");
        Ok(text.replace(from.as_str(), to))
    }
}

/// Reads the list.
pub(super) fn read() -> Result<Vec<Class>> {
    let text = fs::read_to_string(sh::root().join(LIST)).with_context(|| format!("read {LIST}"))?;
    let list: List = toml::from_str(&text).with_context(|| format!("parse {LIST}"))?;
    Ok(list.class)
}

pub(super) fn names(classes: &[Class]) -> Vec<&str> {
    classes.iter().map(|class| class.name.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_still_fits_the_source() {
        for class in read().unwrap() {
            for mutant in &class.mutants {
                assert!(!mutant.tests.is_empty(), "{}", mutant.check);
                let mut changed: Vec<(&str, String)> = Vec::new();
                for change in &mutant.changes {
                    let known = changed.iter().position(|(file, _)| *file == change.file);
                    let text = match known {
                        Some(known) => changed.remove(known).1,
                        None => fs::read_to_string(sh::root().join(&change.file)).unwrap(),
                    };
                    let text = change.apply(&text).unwrap_or_else(|err| panic!("{err:#}"));
                    changed.push((&change.file, text));
                }
            }
        }
    }

    #[test]
    fn every_test_is_there_and_named_after_its_class() {
        let written = super::super::page::tests().unwrap();
        for class in read().unwrap() {
            assert!(written.iter().any(|name| class.owns(name)), "{}", class.name);
            for test in class.mutants.iter().flat_map(|mutant| mutant.tests().unwrap()) {
                assert!(written.contains(test.function()), "{test}");
            }
        }
    }
}
