//! The report for people: a line a group, then what is wrong, then the count.

use std::fmt::Write;

use super::{Finished, Outcome, Report};

pub(super) fn of(report: &Report) -> String {
    let mut text = format!(
        "{} as under containerd {}\n\n{:<14}{:>8}{:>8}{:>9}{:>10}\n",
        report.shim, report.generation, "group", "passed", "failed", "skipped", "seconds"
    );
    for group in report.finished.chunk_by(|one, next| one.case.group == next.case.group) {
        add(&mut text, line(report, group));
    }
    for title in ["failed", "skipped"] {
        let told = report.finished.iter().filter_map(|one| Some((one, why(one, title)?)));
        for (index, (one, why)) in told.enumerate() {
            if index == 0 {
                add(&mut text, format!("\n{title}:\n"));
            }
            let (level, id, sentence) = (one.case.level, one.case.id(), one.case.sentence);
            add(&mut text, format!("  {level:<7}{id}\n         {sentence}\n         → {why}\n"));
        }
    }
    add(&mut text, format!("\n{report}\n"));
    text
}

fn line(report: &Report, group: &[Finished]) -> String {
    let part = Report { finished: group.to_vec(), ..report.clone() };
    let (passed, failed, skipped) = part.totals();
    let seconds: f64 = group.iter().map(|one| one.took.as_secs_f64()).sum();
    let name = group[0].case.group;
    format!("{name:<14}{passed:>8}{failed:>8}{skipped:>9}{seconds:>10.1}\n")
}

/// Why that became of a case, if it did.
fn why<'a>(one: &'a Finished, title: &str) -> Option<&'a str> {
    match (&one.outcome, title) {
        (Outcome::Failed(why), "failed") | (Outcome::Skipped(why), "skipped") => Some(why),
        _ => None,
    }
}

fn add(text: &mut String, more: String) {
    text.write_str(&more).expect("a string takes all");
}
