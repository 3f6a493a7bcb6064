//! The command line, as libtest has it: `NAME… --exact --skip NAME --list --test-threads N`.

use std::env;

use super::Test;
use crate::engine::Engine;

/// Which tests, and how many lanes at once.
#[derive(Debug, Default)]
pub(super) struct Args {
    pub(super) list: bool,
    pub(super) threads: usize,
    /// What the lanes' own processes are given.
    pub(super) passed_on: Vec<String>,
    exact: bool,
    names: Vec<String>,
    skip: Vec<String>,
}

impl Args {
    pub(super) fn of_process() -> Self {
        Self::parse(env::args().skip(1))
    }

    /// Unknown flags are libtest's, and of no use here.
    fn parse(args: impl Iterator<Item = String>) -> Self {
        let passed_on: Vec<_> = args.collect();
        let mut parsed = Self { threads: Engine::ALL.len(), ..Self::default() };
        // `--flag=value` is `--flag value`.
        let mut words = passed_on.iter().flat_map(|arg| match arg.split_once('=') {
            Some((flag, value)) if flag.starts_with("--") => vec![flag, value],
            _ => vec![arg.as_str()],
        });
        while let Some(word) = words.next() {
            match word {
                "--list" => parsed.list = true,
                "--exact" => parsed.exact = true,
                "--skip" => parsed.skip.extend(words.next().map(str::to_owned)),
                "--test-threads" => {
                    let number = words.next().and_then(|n| n.parse().ok());
                    parsed.threads = number.unwrap_or(1);
                }
                "--color" | "--format" | "--logfile" | "-Z" => drop(words.next()),
                flag if flag.starts_with('-') => {}
                name => parsed.names.push(name.to_owned()),
            }
        }
        drop(words);
        Self { passed_on, ..parsed }
    }

    /// The tests of an engine that were asked for, by their full names.
    pub(super) fn select(&self, engine: Engine, tests: &[Test]) -> Vec<(String, Test)> {
        let named = tests.iter().map(|test| {
            let (_, name) = test.name.split_once("::").unwrap_or(("", test.name));
            (format!("{engine}::{}{name}", test.prefix()), *test)
        });
        named.filter(|(name, _)| self.wants(name)).collect()
    }

    fn wants(&self, name: &str) -> bool {
        let matches = |part: &String| if self.exact { name == part } else { name.contains(part) };
        (self.names.is_empty() || self.names.iter().any(matches)) && !self.skip.iter().any(matches)
    }
}

/// The names on a command line of libtest's: neither flags nor what belongs to one.
pub(crate) fn words(mut arguments: impl Iterator<Item = String>) -> Vec<String> {
    const WITH_VALUE: [&str; 5] = ["--test-threads", "--skip", "--color", "--format", "--logfile"];
    let mut words = Vec::new();
    while let Some(argument) = arguments.next() {
        if WITH_VALUE.contains(&argument.as_str()) {
            arguments.next();
        } else if !argument.starts_with('-') {
            words.push(argument);
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::super::Run;
    use super::*;

    fn selected(args: &[&str]) -> Vec<String> {
        let tests =
            ["it::run::a", "it::exec::b"].map(|name| Test { name, run: Run::Lane(|_| Ok(())) });
        let args = Args::parse(args.iter().map(|&arg| arg.to_owned()));
        args.select(Engine::V16, &tests).into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn without_names_every_test_is_selected() {
        assert_eq!(selected(&[]), ["engine16::run::a", "engine16::exec::b"]);
    }

    #[test]
    fn a_part_of_the_name_selects_unless_it_has_to_be_exact() {
        assert_eq!(selected(&["run", "--nocapture"]), ["engine16::run::a"]);
        assert_eq!(selected(&["run", "--exact"]), [""; 0]);
        assert_eq!(selected(&["--skip=run"]), ["engine16::exec::b"]);
    }

    #[test]
    fn a_flag_s_value_is_no_name() {
        let line = "--test-threads 1 memory --nocapture --skip soak".split(' ').map(str::to_owned);
        assert_eq!(words(line), ["memory"]);
    }
}
