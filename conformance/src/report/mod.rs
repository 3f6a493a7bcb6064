//! What became of the cases, and how it is told.

mod json;
mod junit;
mod table;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use anyhow::bail;
use shim_client::Generation;

use crate::case::{Case, Level};

/// What became of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The shim does what the sentence says, and left nothing.
    Passed,
    /// It does not; how that showed.
    Failed(String),
    /// It could not be checked; why.
    Skipped(String),
}

/// A case that has run.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Which.
    pub case: Case,
    /// What became of it.
    pub outcome: Outcome,
    /// How long it took, its cleaning up included.
    pub took: Duration,
}

/// A run of the suite.
#[derive(Clone, Debug)]
pub struct Report {
    /// The shim's name.
    pub shim: String,
    /// The containerd that the suite was.
    pub generation: Generation,
    /// Its cases, in their order.
    pub finished: Vec<Finished>,
}

impl Report {
    fn count(&self, is: impl Fn(&Finished) -> bool) -> usize {
        self.finished.iter().filter(|one| is(one)).count()
    }

    /// How many passed, failed and were skipped.
    #[must_use]
    pub fn totals(&self) -> (usize, usize, usize) {
        (
            self.count(|one| one.outcome == Outcome::Passed),
            self.count(|one| matches!(one.outcome, Outcome::Failed(_))),
            self.count(|one| matches!(one.outcome, Outcome::Skipped(_))),
        )
    }

    /// Whether a MUST is broken.
    #[must_use]
    pub fn breaks_the_contract(&self) -> bool {
        self.finished
            .iter()
            .any(|one| one.case.level == Level::Must && matches!(one.outcome, Outcome::Failed(_)))
    }

    /// The report in that form.
    #[must_use]
    pub fn to_text(&self, format: Format) -> String {
        match format {
            Format::Table => table::of(self),
            Format::Json => format!("{:#}\n", json::of(self)),
            Format::Junit => junit::of(self),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (passed, failed, skipped) = self.totals();
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

/// A form of the report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// One object, with a list of cases.
    Json,
    /// JUnit's XML, which CI systems read.
    Junit,
}

impl FromStr for Format {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        match text {
            "table" => Ok(Self::Table),
            "json" => Ok(Self::Json),
            "junit" => Ok(Self::Junit),
            _ => bail!("no report {text:?}: choose table, json or junit"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut cases = crate::cases().into_iter();
        let mut finished = |outcome| Finished {
            case: cases.next().unwrap(),
            outcome,
            took: Duration::from_millis(1500),
        };
        Report {
            shim: "a<b>".to_owned(),
            generation: Generation::V2_3,
            finished: vec![
                finished(Outcome::Passed),
                finished(Outcome::Failed("got \"x\" & y".to_owned())),
                finished(Outcome::Skipped("no kernel".to_owned())),
            ],
        }
    }

    #[test]
    fn the_last_line_counts() {
        let text = report().to_text(Format::Table);
        assert_eq!(text.lines().last(), Some("1 passed, 1 failed, 1 skipped"));
        assert!(text.contains("got \"x\" & y"), "{text}");
    }

    #[test]
    fn json_and_junit_have_every_case() {
        let json: serde_json::Value =
            serde_json::from_str(&report().to_text(Format::Json)).unwrap();
        assert_eq!(json["cases"].as_array().unwrap().len(), 3);
        assert_eq!((&json["failed"], &json["cases"][1]["outcome"]), (&1.into(), &"failed".into()));

        let xml = report().to_text(Format::Junit);
        assert_eq!(xml.matches("<testcase ").count(), 3);
        assert!(xml.contains("a&lt;b&gt;") && xml.contains("got &quot;x&quot; &amp; y"), "{xml}");
    }
}
