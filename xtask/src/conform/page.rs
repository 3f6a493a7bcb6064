//! `docs/conformance.md`: who passes what, and the verdicts.

use std::{collections::BTreeMap, fmt::Write};

use serde_json::Value;

use super::{Judged, id, is_broken_must, verdict};

const HEAD: &str = "\
# Conformance

What `cargo xtask conform` found; it writes this page. Each shim is judged by `shimctl conform`, as
the containerd of its own release runs it (ours as every one). The Go shims are containerd's own,
from Debian, with runc 1.1.5; the Rust shim is `containerd-runc-shim` of the Rust registry with the
same runc. It answers no containerd from 2.3 on, so it is judged as under 2.0.

The group `sandbox` is for shims with containerd's sandbox service, and no shim here has it; the example
`containerd-shim-plainpod-v1` of `shim-core` passes it.

A case is a MUST when containerd or its users break or lose something without it, else a SHOULD.
`shimctl conform --list` prints every case with its sentence.

";

/// The whole page.
pub(super) fn write(judged: &[Judged], verdicts: &BTreeMap<String, String>) -> String {
    let mut page = HEAD.to_owned();
    add(&mut page, &totals(judged));
    add(&mut page, &groups(judged));
    add(&mut page, &skipped(judged));
    add(&mut page, &looked_at_twice(judged, verdicts));
    add(&mut page, &broken(judged));
    page
}

fn totals(judged: &[Judged]) -> String {
    let mut table = "## In all\n\n| shim | passed | failed: MUST | failed: SHOULD | skipped |\n\
                     |---|---|---|---|---|\n"
        .to_owned();
    for one in judged {
        let musts = one.cases().filter(|case| is_broken_must(case)).count();
        let shoulds = one.count("failed") - musts as u64;
        let (name, passed, skipped) =
            (&one.subject.name, one.count("passed"), one.count("skipped"));
        add(&mut table, &format!("| {name} | {passed} | {musts} | {shoulds} | {skipped} |\n"));
    }
    table + "\n"
}

/// A row a group, a column a shim: how many of how many pass.
fn groups(judged: &[Judged]) -> String {
    let mut rows: Vec<String> = Vec::new();
    for case in judged.iter().flat_map(Judged::cases) {
        let group = case["group"].as_str().unwrap_or_default().to_owned();
        if !rows.contains(&group) {
            rows.push(group);
        }
    }
    let names: Vec<&str> = judged.iter().map(|one| one.subject.name.as_str()).collect();
    let mut table = format!("## By group\n\n| group | {} |\n", names.join(" | "));
    add(&mut table, &format!("|---|{}\n", "---|".repeat(names.len())));
    for row in rows {
        add(&mut table, &format!("| {row} |"));
        for one in judged {
            let cases: Vec<&Value> = one.cases().filter(|case| case["group"] == *row).collect();
            let passed = cases.iter().filter(|case| case["outcome"] == "passed").count();
            let skipped = cases.iter().filter(|case| case["outcome"] == "skipped").count();
            let all = cases.len() - skipped;
            let cell = if passed == all { format!("{all}") } else { format!("**{passed}**/{all}") };
            add(&mut table, &format!(" {cell} |"));
        }
        table.push('\n');
    }
    table + "\n"
}

/// What our own shim was not asked, and why.
fn skipped(judged: &[Judged]) -> String {
    let mut reasons: BTreeMap<String, String> = BTreeMap::new();
    for one in judged.iter().filter(|one| one.subject.is_ours) {
        for case in one.cases().filter(|case| case["outcome"] == "skipped") {
            reasons.insert(id(case), text(case, "why"));
        }
    }
    if reasons.is_empty() {
        return String::new();
    }
    let mut list = "## Skipped with ours\n\n".to_owned();
    for (id, why) in reasons {
        add(&mut list, &format!("- `{id}`: {why}\n"));
    }
    list + "\n"
}

/// MUSTs that a Go shim breaks: is the case wrong, or the shim?
fn looked_at_twice(judged: &[Judged], verdicts: &BTreeMap<String, String>) -> String {
    let mut broken: BTreeMap<String, (String, Vec<&str>)> = BTreeMap::new();
    for one in judged.iter().filter(|one| one.subject.is_reference) {
        for case in one.cases().filter(|case| is_broken_must(case)) {
            let entry = broken.entry(id(case)).or_insert_with(|| (text(case, "sentence"), vec![]));
            entry.1.push(&one.subject.name);
        }
    }
    let mut list = "## MUSTs that a Go shim breaks\n\n".to_owned();
    for (id, (sentence, names)) in broken {
        let verdict = verdict(verdicts, &id).unwrap_or("not looked at yet");
        let names = names.join(", ");
        add(&mut list, &format!("- `{id}` ({names}): {sentence} *{verdict}*\n"));
    }
    list + "\n"
}

/// Every failure, with what was seen.
fn broken(judged: &[Judged]) -> String {
    let mut list = "## Every failure\n".to_owned();
    for one in judged {
        let failures: Vec<&Value> =
            one.cases().filter(|case| case["outcome"] == "failed").collect();
        if failures.is_empty() {
            continue;
        }
        add(&mut list, &format!("\n### {}\n\n", one.subject.name));
        for case in failures {
            let why = without_place(&text(case, "why"), one);
            let (level, why) = (text(case, "level"), shortened(&why));
            add(&mut list, &format!("- {level} `{}`: {why}\n", id(case)));
        }
    }
    list
}

/// Without where the shim lies on this machine, and the number of this run.
fn without_place(why: &str, one: &Judged) -> String {
    let folder = one.subject.shim.parent().map(|folder| format!("{}/", folder.display()));
    let why = folder.map_or_else(|| why.to_owned(), |folder| why.replace(&folder, ""));
    let mut parts = why.split("conform-");
    let mut told = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        told.push_str("conform");
        told.push_str(part.trim_start_matches(|sign: char| sign.is_ascii_digit()));
    }
    told
}

/// One line, of a bearable length.
fn shortened(why: &str) -> String {
    const LONGEST: usize = 220;
    let line = why.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|");
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

fn text(case: &Value, field: &str) -> String {
    case[field].as_str().unwrap_or_default().to_owned()
}

fn add(page: &mut String, more: &str) {
    page.write_str(more).expect("a string takes all");
}
