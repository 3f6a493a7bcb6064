//! The report as JUnit's XML: a suite a group, a test a case.

use std::fmt::Write;

use super::{Finished, Outcome, Report};

pub(super) fn of(report: &Report) -> String {
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let name = format!("{} as under containerd {}", report.shim, report.generation);
    let (_, failed, skipped) = report.totals();
    let total = report.finished.len();
    add(
        &mut xml,
        format_args!(
            "<testsuites name=\"{}\" tests=\"{total}\" failures=\"{failed}\" skipped=\"{skipped}\">\n",
            escaped(&name),
        ),
    );
    for group in report.finished.chunk_by(|one, next| one.case.group == next.case.group) {
        let failures = group.iter().filter(|one| matches!(one.outcome, Outcome::Failed(_))).count();
        let (name, tests) = (group[0].case.group, group.len());
        add(
            &mut xml,
            format_args!(
                "  <testsuite name=\"{name}\" tests=\"{tests}\" failures=\"{failures}\">\n"
            ),
        );
        group.iter().for_each(|one| test(&mut xml, one));
        xml.push_str("  </testsuite>\n");
    }
    xml.push_str("</testsuites>\n");
    xml
}

fn test(xml: &mut String, one: &Finished) {
    let (group, name) = (one.case.group, one.case.name);
    let seconds = one.took.as_secs_f64();
    add(
        xml,
        format_args!("    <testcase classname=\"{group}\" name=\"{name}\" time=\"{seconds:.3}\""),
    );
    let inner = match &one.outcome {
        Outcome::Passed => return xml.push_str("/>\n"),
        Outcome::Failed(why) => format!(
            "<failure type=\"{}\" message=\"{}\">{}</failure>",
            one.case.level,
            escaped(why),
            escaped(one.case.sentence),
        ),
        Outcome::Skipped(why) => format!("<skipped message=\"{}\"/>", escaped(why)),
    };
    add(xml, format_args!(">{inner}</testcase>\n"));
}

fn add(xml: &mut String, text: std::fmt::Arguments<'_>) {
    xml.write_fmt(text).expect("a string takes all");
}

/// What XML forbids in text: its own signs, and control characters.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for sign in text.chars() {
        match sign {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\n' | '\t' => safe.push(' '),
            sign if sign.is_control() => safe.push('?'),
            sign => safe.push(sign),
        }
    }
    safe
}
