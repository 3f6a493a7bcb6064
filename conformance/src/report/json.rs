//! The report as a JSON object.

use serde_json::{Value, json};

use super::{Finished, Outcome, Report};

pub(super) fn of(report: &Report) -> Value {
    let (passed, failed, skipped) = report.totals();
    json!({
        "shim": report.shim,
        "containerd": report.generation.to_string(),
        "passed": passed,
        "failed": failed,
        "skipped": skipped,
        "cases": report.finished.iter().map(case).collect::<Vec<_>>(),
    })
}

fn case(one: &Finished) -> Value {
    let (outcome, why) = match &one.outcome {
        Outcome::Passed => ("passed", None),
        Outcome::Failed(why) => ("failed", Some(why)),
        Outcome::Skipped(why) => ("skipped", Some(why)),
    };
    json!({
        "group": one.case.group,
        "name": one.case.name,
        "level": one.case.level.to_string(),
        "sentence": one.case.sentence,
        "outcome": outcome,
        "why": why,
        "seconds": one.took.as_secs_f64(),
    })
}
