//! `docs/performance.md`: the targets, and everything that was measured.

use std::fmt::Write;

use super::{
    found::{Row, Scenario},
    judge::{Verdict, short},
};

const HEAD: &str = "\
# Performance

What `cargo xtask bench` measured; it writes this page. All shims run the same containers in one run
and in turn, each round beginning with another one, so what counts are the ratios between columns: a
faster machine changes all of them alike. `--quick` gives a first look in a few minutes.

The containers have containerd's default spec, `sleep` or `true` of a static busybox, and null
streams but for `stdio`. `/run` is a tmpfs, as on most hosts. The unified cgroup hierarchy is hidden
from all, since crun refuses a host that has controllers in it beside those of version 1.

";

const TARGETS: &str = "\
## What we want

A missed target is `short` and fails no build. The floor is a C program that makes the same container
with nothing around it ([benches](../benches/README.md)): no shim can be faster.

| what | ours | peer | ratio | target | | measured by |
|---|---|---|---|---|---|---|
";

const THROUGH: &str = "\
Create, Start, Wait and Delete of `true` over containerd's gRPC; `whole life` is their sum, `ctr run`
the command line client from its start to its end. `plain` is the example of `shim-core`, which makes
no container but a process of the host. Everything of containerd is in a tmpfs.

";

const ALONE: &str = "\
The same lives without containerd: its calls are played, in its order. What is missing is containerd's
own part, which no shim can make shorter.

";

/// The whole page.
pub(super) fn write(machine: &str, scenarios: &[Scenario], verdicts: &[Verdict]) -> String {
    let mut page = HEAD.to_owned();
    add(&mut page, &format!("{}\n\n{TARGETS}", wrapped(machine)));
    for verdict in verdicts {
        let scenario = scenarios.iter().find(|scenario| scenario.name == verdict.scenario);
        let command = scenario.map_or("nothing", |scenario| scenario.command.as_str());
        add(&mut page, &format!("| {} | `{command}` |\n", verdict.cells().join(" | ")));
    }
    add(&mut page, &split(scenarios));
    for scenario in scenarios {
        add(&mut page, &section(scenario));
    }
    page
}

/// How much of a life through containerd is containerd's own.
fn split(scenarios: &[Scenario]) -> String {
    let mut lines = String::new();
    for (when, suffix) in [("back to back", ""), ("after idleness", ", idle")] {
        let whole = |name: &str, shim: &str| {
            let name = format!("{name}{suffix}");
            let scenario = scenarios.iter().find(|one| one.name == name)?;
            scenario.rows.iter().find(|row| row.name == "whole life")?.value(shim)
        };
        for shim in ["native", "plain"] {
            let (Some(all), Some(own)) = (whole("containerd", shim), whole("alone", shim)) else {
                continue;
            };
            let line = format!(
                "- {shim}, {when}: {} ms, of which the shim takes {} ms and containerd {} ms.\n",
                short(all),
                short(own),
                short(all - own),
            );
            add(&mut lines, &line);
        }
    }
    if lines.is_empty() {
        return lines;
    }
    format!("\nOf a life through containerd:\n\n{lines}")
}

fn section(scenario: &Scenario) -> String {
    let Scenario { name, title, command, plots, rows } = scenario;
    let text = match name.as_str() {
        "containerd" => THROUGH,
        "alone" => ALONE,
        _ => "",
    };
    let mut section = format!("\n## {title}\n\n{text}    {command}\n\n");
    let names: Vec<&str> = columns(rows);
    add(&mut section, &format!("| median (95th percentile) | {} |\n", names.join(" | ")));
    add(&mut section, &format!("|---|{}\n", "---|".repeat(names.len())));
    for row in rows {
        add(&mut section, &line(row, &names));
    }
    for plot in plots {
        let file = file_of(plot);
        let label = file.trim_end_matches(".svg").replace('-', " ");
        add(&mut section, &format!("\n![{label}]({file})\n"));
    }
    section
}

/// Every shim of the rows, each once.
fn columns(rows: &[Row]) -> Vec<&str> {
    let mut names = Vec::new();
    for shim in rows.iter().flat_map(|row| &row.shims) {
        if !names.contains(&shim.name.as_str()) {
            names.push(&shim.name);
        }
    }
    names
}

fn line(row: &Row, names: &[&str]) -> String {
    let at = row.at.last().map(|at| format!(", {at} containers")).unwrap_or_default();
    let mut line = format!("| {}{at}, {} |", row.name, row.unit);
    for name in names {
        let cell = match row.shims.iter().find(|shim| shim.name == *name) {
            Some(shim) if row.at.is_empty() => {
                format!("{} ({})", short(shim.median), short(shim.p95))
            }
            Some(shim) => short(shim.samples.last().copied().unwrap_or(shim.median)),
            None => "–".to_owned(),
        };
        add(&mut line, &format!(" {cell} |"));
    }
    line + "\n"
}

/// In lines as long as the page's others.
fn wrapped(text: &str) -> String {
    let mut lines = String::new();
    let mut length = 0;
    for word in text.split(' ') {
        let more = word.chars().count() + 1;
        let fits = length + more <= 100;
        let gap = if lines.is_empty() {
            ""
        } else if fits {
            " "
        } else {
            "\n"
        };
        length = if fits { length + more } else { more };
        lines.push_str(gap);
        lines.push_str(word);
    }
    lines
}

/// What a plot's file is called beside the page.
pub(super) fn file_of(plot: &str) -> String {
    let (scenario, file) = plot.split_once('/').unwrap_or(("", plot));
    // The scenario may be in the name already.
    let rest = file.strip_prefix(scenario).map_or(file, |rest| rest.trim_start_matches('-'));
    let name = format!("performance-{scenario}-{rest}");
    name.replace("--", "-").replace("-.svg", ".svg")
}

fn add(page: &mut String, more: &str) {
    page.write_str(more).expect("a string takes all");
}

#[cfg(test)]
mod tests;
