//! Runs the cases, one after the other, each in a lab of its own.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Error, Result};
use shim_client::{Generation, ShimBinary};
use shim_protos::Any;
use tokio::time::timeout;

use crate::case::Case;
use crate::expect::Skip;
use crate::lab::Lab;
use crate::report::{Finished, Outcome, Report};

/// A shim to be judged.
#[derive(Clone, Debug)]
pub struct Subject {
    /// What the report calls it.
    pub name: String,
    /// The shim.
    pub binary: ShimBinary,
    /// Its runtime options.
    pub options: Option<Any>,
}

/// A run of the cases against a shim.
#[derive(Debug)]
pub struct Suite {
    /// The shim.
    pub subject: Subject,
    /// The containerd to be towards it.
    pub generation: Generation,
    /// Parts of case ids; none means all cases, and one behind `!` leaves cases out.
    pub filter: Vec<String>,
    /// A folder of the suite's own, for bundles and sockets.
    pub folder: PathBuf,
}

impl Suite {
    /// The cases that this run has.
    #[must_use]
    pub fn selected(&self) -> Vec<Case> {
        let chosen = |case: &Case| is_chosen(&self.filter, &case.id());
        let cases = crate::cases().into_iter();
        cases.filter(|case| case.applies_to(self.generation)).filter(chosen).collect()
    }

    /// Runs them, and tells of each when it has ended. [`crate::isolate`] comes first.
    ///
    /// # Errors
    /// When the suite's own part fails: a shim's failures are in the report.
    pub async fn run(&self, tell: &mut dyn FnMut(&Finished)) -> Result<Report> {
        fs::create_dir_all(&self.folder)
            .with_context(|| format!("create {}", self.folder.display()))?;
        let mut finished = Vec::new();
        for (number, case) in self.selected().into_iter().enumerate() {
            let begun = Instant::now();
            let outcome = self.judge(number, &case).await?;
            let one = Finished { case, outcome, took: begun.elapsed() };
            tell(&one);
            finished.push(one);
        }
        fs::remove_dir_all(&self.folder)
            .with_context(|| format!("remove {}", self.folder.display()))?;
        Ok(Report { shim: self.subject.name.clone(), generation: self.generation, finished })
    }

    async fn judge(&self, number: usize, case: &Case) -> Result<Outcome> {
        let lab = Lab::open(&self.subject, self.generation, &self.folder, number).await?;
        let outcome = match timeout(case.limit, (case.check)(&lab)).await {
            Ok(Ok(())) => Outcome::Passed,
            Ok(Err(error)) => outcome_of(&error),
            Err(_) => Outcome::Failed(format!("not done after {:?}", case.limit)),
        };
        // What a case leaves counts only if it ended as it should: one that stopped halfway has
        // no chance to leave nothing.
        let left = lab.close().await?;
        match outcome {
            Outcome::Passed if !left.is_empty() => {
                Ok(Outcome::Failed(format!("left behind: {}", left.join(", "))))
            }
            outcome => Ok(outcome),
        }
    }
}

fn outcome_of(error: &Error) -> Outcome {
    match error.downcast_ref::<Skip>() {
        Some(skip) => Outcome::Skipped(skip.0.clone()),
        None => Outcome::Failed(format!("{error:#}")),
    }
}

fn is_chosen(filter: &[String], id: &str) -> bool {
    let (out, wanted): (Vec<_>, Vec<_>) = filter.iter().partition(|part| part.starts_with('!'));
    let has = |part: &String| id.contains(part.trim_start_matches('!'));
    (wanted.is_empty() || wanted.into_iter().any(has)) && !out.into_iter().any(has)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_choose_and_leave_out() {
        let chosen = |filter: &[&str]| {
            let filter: Vec<String> = filter.iter().map(ToString::to_string).collect();
            ["exec.a", "exec.b", "kill.a"].map(|id| is_chosen(&filter, id))
        };
        assert_eq!(chosen(&[]), [true, true, true]);
        assert_eq!(chosen(&["exec"]), [true, true, false]);
        assert_eq!(chosen(&["exec", "!.b"]), [true, false, false]);
        assert_eq!(chosen(&["!.a"]), [false, true, false]);
    }

    #[test]
    fn cases_have_names_of_their_own_and_sentences() {
        let cases = crate::cases();
        let mut ids: Vec<String> = cases.iter().map(Case::id).collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), cases.len());
        for case in cases {
            let word = case.level.to_string();
            assert!(case.sentence.contains(&word), "{}: no {word} in its sentence", case.id());
            assert!(case.sentence.ends_with('.'), "{}: no sentence", case.id());
        }
    }
}
