//! `docs/compare.md`: every bundle with its verdict, and the differences that are meant.

use std::{collections::BTreeMap, fmt::Write};

use super::{
    explain::Explained,
    report::{Compared, Difference, Verdict},
    subject::{OURS, Subject},
};

const HEAD: &str = "\
# Beside runc and crun

What `cargo xtask compare-runtimes` found; it writes this page. Each bundle has one concern, and goes
through every runtime: create, start, exec, and so on to delete. A program inside tells what it sees,
the chore looks at the cgroup from the host, and at what is left in the end. All of it is compared
field by field. A field differs when ours has a value that no peer has.

";

/// The whole page.
pub(super) fn write(subjects: &[Subject], compared: &Compared, explained: &Explained) -> String {
    let mut page = HEAD.to_owned();
    let peers = subjects.iter().filter(|subject| subject.name != OURS);
    let peers: Vec<String> =
        peers.map(|subject| format!("{} {}", subject.name, subject.version)).collect();
    add(&mut page, &format!("The peers: {}.\n\n", peers.join(", ")));
    add(&mut page, &bundles(compared));
    add(&mut page, &meant(compared, explained));
    add(&mut page, &disagreements(compared));
    page
}

fn bundles(compared: &Compared) -> String {
    let mut table = format!(
        "## Bundles\n\n{} bundles, {} unexplained differences.\n\n\
         | bundle | beside the peers |\n|---|---|\n",
        compared.0.len(),
        compared.unexplained()
    );
    for judged in &compared.0 {
        add(&mut table, &format!("| `{}` | {} |\n", judged.name, judged.verdict()));
    }
    table + "\n"
}

fn meant(compared: &Compared, explained: &Explained) -> String {
    let mut list = "## Differences that are meant\n\n| bundle | field | why | the values once |\n\
                    |---|---|---|---|\n"
        .to_owned();
    for line in explained.lines() {
        let example = compared.0.iter().find_map(|judged| {
            let is_so = |one: &&Difference| {
                matches!(one.verdict, Verdict::Explained(_))
                    && line.is_about(&judged.name, &one.field)
            };
            judged.differences.iter().find(is_so)
        });
        let example = example.map(values).unwrap_or_default();
        let (bundle, field, why) = (&line.bundle, &line.field, &line.reason);
        add(&mut list, &format!("| `{bundle}` | `{field}` | {why} | {example} |\n"));
    }
    list + "\n"
}

/// Where the peers disagree, by field and values: a row each, and in how many bundles.
fn disagreements(compared: &Compared) -> String {
    let mut rows: BTreeMap<(String, String, String), Vec<&str>> = BTreeMap::new();
    for judged in &compared.0 {
        for one in &judged.differences {
            let Verdict::Follows(like) = &one.verdict else { continue };
            let row = (one.field.clone(), values(one), like.join(", "));
            rows.entry(row).or_default().push(&judged.name);
        }
    }
    let mut table = "## Where the peers disagree\n\n| field | values | ours is like | bundles |\n\
                     |---|---|---|---|\n"
        .to_owned();
    for ((field, values, like), names) in rows {
        let names = match names.as_slice() {
            [one] => format!("`{one}`"),
            many => many.len().to_string(),
        };
        add(&mut table, &format!("| `{field}` | {values} | {like} | {names} |\n"));
    }
    table
}

/// The values, those that are equal together: `runc, crun: a; ours: b`.
fn values(one: &Difference) -> String {
    let mut groups: Vec<(String, Vec<&str>)> = Vec::new();
    for (name, value) in &one.values {
        match groups.iter_mut().find(|(known, _)| known == value) {
            Some((_, names)) => names.push(name),
            None => groups.push((value.clone(), vec![name])),
        }
    }
    let told =
        groups.iter().map(|(value, names)| format!("{}: {}", names.join(", "), short(value)));
    told.collect::<Vec<_>>().join("; ")
}

fn short(value: &str) -> String {
    const LONGEST: usize = 80;
    let line = value.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|");
    let line = match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    };
    if line.is_empty() { "nothing".to_owned() } else { format!("`{}`", line.replace('`', "'")) }
}

fn add(page: &mut String, more: &str) {
    page.write_str(more).expect("a string takes all");
}
