//! A line for each budget, and the count of how they ended.

use std::io::{self, Write};
use std::process::ExitCode;

use super::limits::Budget;

/// What became of the budgets.
#[derive(Debug, Default)]
pub(super) struct Tally {
    ok: u32,
    over: u32,
    skipped: u32,
}

impl Tally {
    /// Holds what was found against the limit; whether it is within.
    pub(super) fn judge(&mut self, budget: &Budget, found: u64) -> bool {
        let Budget { name, limit, unit } = budget;
        let within = found <= *limit;
        *(if within { &mut self.ok } else { &mut self.over }) += 1;
        let verdict = if within { "ok" } else { "over" };
        say(&format!("budget {name:<34} {found:>6} of {limit:>5} {unit:<9} {verdict}"));
        within
    }

    /// Counts what cannot be measured here.
    pub(super) fn skip(&mut self, budget: &Budget, why: &str) {
        self.skipped += 1;
        say(&format!("budget {:<34} SKIPPED: {}", budget.name, why.replace('\n', "; ")));
    }

    /// The last line.
    pub(super) fn close(&self) -> ExitCode {
        let Self { ok, over, skipped } = self;
        say(&format!("\n{ok} passed, {over} failed, {skipped} skipped"));
        if self.over == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// Prints a line.
pub(super) fn say(text: &str) {
    // A closed pipe is no reason to fail.
    let _ = writeln!(io::stdout().lock(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::super::limits::CALLS_START;
    use super::*;

    fn check(found: u64, expect: ExitCode) {
        let mut tally = Tally::default();
        tally.judge(&CALLS_START, found);
        tally.skip(&CALLS_START, "no strace");
        // An exit code can only be looked at this way.
        assert_eq!(format!("{:?}", tally.close()), format!("{expect:?}"));
    }

    #[test]
    fn the_limit_itself_is_allowed_and_one_more_fails() {
        check(CALLS_START.limit, ExitCode::SUCCESS);
        check(CALLS_START.limit + 1, ExitCode::FAILURE);
    }
}
