//! The verbs that look: state, list, ps, features.

use std::{fmt::Write, process::Command};

use clap::ValueEnum;
use serde_json::Value;
use shim_core::{Context, Error, Result};
use shim_runc::runtime::{self, State as Told};

use crate::cli::{Global, print, print_json};

/// What is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

/// Print a container's state
#[derive(Debug, clap::Args)]
pub(crate) struct State {
    id: String,
}

impl State {
    pub(crate) fn run(&self, global: &Global) -> Result<u8> {
        print_json(&global.runtime()?.state(&self.id)?)
    }
}

/// List the containers
#[derive(Debug, clap::Args)]
pub(crate) struct List {
    #[arg(short, long, default_value = "table")]
    format: Format,
    /// Print the names only
    #[arg(short, long)]
    quiet: bool,
}

impl List {
    pub(crate) fn run(&self, global: &Global) -> Result<u8> {
        let all = global.runtime()?.list()?;
        if self.quiet {
            let ids: Vec<_> = all.iter().map(|one| one.id.as_str()).collect();
            return if ids.is_empty() { Ok(0) } else { print(&ids.join("\n")) };
        }
        match self.format {
            Format::Json => print(&serde_json::to_string(&all)?),
            Format::Table => print(&table(&all)),
        }
    }
}

fn table(all: &[Told]) -> String {
    let mut rows = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned)];
    for one in all {
        let bundle = one.bundle.display().to_string();
        let (pid, status) = (one.pid.to_string(), one.status.to_string());
        rows.push([one.id.clone(), pid, status, bundle, one.created.clone(), one.owner.clone()]);
    }
    let width = |column: usize| {
        rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default()
    };
    let widths: [usize; 6] = std::array::from_fn(width);
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            write!(line, "{cell:width$}  ").expect("a String takes everything");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text
}

/// List the processes of a container
#[derive(Debug, clap::Args)]
pub(crate) struct Ps {
    #[arg(short, long, default_value = "table")]
    format: Format,
    id: String,
    /// Options of ps(1), for the table; it has to have a column PID
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

impl Ps {
    pub(crate) fn run(&self, global: &Global) -> Result<u8> {
        let mut pids: Vec<_> =
            global.runtime()?.pids(&self.id)?.iter().map(|pid| pid.get()).collect();
        pids.sort_unstable();
        if self.format == Format::Json {
            return print(&serde_json::to_string(&pids)?);
        }
        let options =
            if self.options.is_empty() { vec!["-ef".to_owned()] } else { self.options.clone() };
        let output = Command::new("ps").args(options).output().context("execute ps")?;
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
            return Err(Error::other(format!("ps: {why}")));
        }
        print(&lines_of(&String::from_utf8_lossy(&output.stdout), &pids)?)
    }
}

/// The lines of a table of processes that are about some of them, and its head.
fn lines_of(table: &str, pids: &[u32]) -> Result<String> {
    let mut lines = table.lines();
    let head = lines.next().unwrap_or_default();
    let column = head.split_whitespace().position(|name| name == "PID");
    let column = column.ok_or_else(|| Error::invalid("ps prints no column PID"))?;
    let is_ours = |line: &&str| {
        let pid = line.split_whitespace().nth(column).and_then(|pid| pid.parse().ok());
        pid.is_some_and(|pid| pids.contains(&pid))
    };
    Ok([head].into_iter().chain(lines.filter(is_ours)).collect::<Vec<_>>().join("\n"))
}

/// Print what the runtime can do
#[derive(Debug, clap::Args)]
pub(crate) struct Features {}

impl Features {
    pub(crate) fn run(&self) -> Result<u8> {
        let features: Value = serde_json::from_str(&runtime::features())?;
        print_json(&features)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_chosen_by_the_column_of_the_pid() {
        let table = "UID PID PPID\nroot 1 0\nroot 12 1\nroot 2 12\n";
        assert_eq!(lines_of(table, &[12, 3]).unwrap(), "UID PID PPID\nroot 12 1");
        assert!(lines_of("A B\n1 2\n", &[1]).is_err());
    }

    #[test]
    fn a_table_without_containers_has_its_head() {
        assert_eq!(table(&[]), "ID  PID  STATUS  BUNDLE  CREATED  OWNER");
    }
}
