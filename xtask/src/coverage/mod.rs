//! Whether the page of what is done of `config.json` is true: each field of the spec has a row, and each
//! row a file and a test that are there.

use std::{fs, path::Path};

use anyhow::{Context, Result};

/// The page.
const PAGE: &str = "docs/oci-coverage.md";

/// The fields of the OCI runtime spec's schema that have no fields below them, but those for other
/// systems.
const FIELDS: &str = include_str!("fields.txt");

/// Where the files of the page are.
const FILES: &str = "shim-runc/src";

/// A row of the page, by what stands between backticks in its cells.
#[derive(Debug, PartialEq, Eq)]
struct Row<'a> {
    fields: Vec<&'a str>,
    files: Vec<&'a str>,
    tests: Vec<&'a str>,
    hosts: Vec<&'a str>,
}

/// Says what is wrong with the page, given all sources.
pub(crate) fn check(root: &Path, sources: &[(String, String)]) -> Result<Vec<String>> {
    let page = fs::read_to_string(root.join(PAGE)).with_context(|| format!("read {PAGE}"))?;
    let rows: Vec<Row<'_>> = page.lines().filter_map(row).collect();
    let mut wrong = Vec::new();
    for field in FIELDS.lines() {
        let named = |row: &Row<'_>| row.fields.iter().any(|pattern| covers(pattern, field));
        if !rows.iter().any(named) {
            wrong.push(format!("{PAGE}: {field} has no row"));
        }
    }
    for row in &rows {
        wrong.extend(row.faults(root, sources));
    }
    Ok(wrong)
}

impl Row<'_> {
    fn faults(&self, root: &Path, sources: &[(String, String)]) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut say = |what: String| wrong.push(format!("{PAGE}: {what}"));
        for pattern in &self.fields {
            if !FIELDS.lines().any(|field| covers(pattern, field)) {
                say(format!("{pattern} is no field"));
            }
        }
        let first = self.fields.first().copied().unwrap_or_default();
        if self.files.is_empty() || self.tests.is_empty() {
            say(format!("{first} has no file or no test"));
        }
        for file in &self.files {
            if !root.join(FILES).join(file).exists() {
                say(format!("{file} of {first} is not there"));
            }
        }
        for test in &self.tests {
            let head = format!("fn {test}(");
            if !sources.iter().any(|(_, text)| text.contains(&head)) {
                say(format!("test {test} of {first} is not there"));
            }
        }
        let known = ["yes", "files", "plan", "none", "same"];
        if self.hosts.len() != 3 || self.hosts.iter().any(|host| !known.contains(host)) {
            say(format!("{first} is not told for each of the three hosts: {:?}", self.hosts));
        }
        wrong
    }
}

/// A row of fields; other lines are none.
fn row(line: &str) -> Option<Row<'_>> {
    let cells: Vec<&str> = line.strip_prefix('|')?.strip_suffix('|')?.split('|').collect();
    let [fields, files, tests, hosts @ ..] = cells.as_slice() else { return None };
    let fields = quoted(fields);
    (!fields.is_empty()).then(|| Row {
        fields,
        files: quoted(files),
        tests: quoted(tests),
        hosts: hosts.iter().map(|host| host.trim()).collect(),
    })
}

/// What stands between backticks.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// Whether a pattern with one or no `*` in it is a field's.
fn covers(pattern: &str, field: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == field,
        Some((start, end)) => {
            field.len() >= start.len() + end.len()
                && field.starts_with(start)
                && field.ends_with(end)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_read_by_its_cells() {
        assert_eq!(row("| field | file |"), None);
        assert_eq!(row("text"), None);
        let expected = Row {
            fields: vec!["a.b", "a.c.*"],
            files: vec!["x.rs"],
            tests: vec!["works"],
            hosts: vec!["yes", "none", "plan"],
        };
        let line = "| `a.b`, `a.c.*` | `x.rs` | `works` | yes | none | plan |";
        assert_eq!(row(line), Some(expected));
    }

    #[test]
    fn patterns_cover_what_is_below_them() {
        assert!(covers("a.*", "a.b.c") && covers("a.*[].x", "a.b[].x") && covers("a", "a"));
        assert!(!covers("a", "a.b") && !covers("a.*[].x", "a.b[].y") && !covers("ab*b", "ab"));
    }
}
