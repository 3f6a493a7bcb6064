//! The matrix as a page.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::matrix::{Cell, Fault, Step};

/// What became of a cell.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Which.
    pub cell: Cell,
    /// How many rounds were played.
    pub rounds: u64,
    /// In how many of them the fault came inside the step.
    pub inside: u64,
    /// What went wrong, a text a round.
    pub wrong: Vec<String>,
    /// Why it was not played.
    pub skipped: Option<String>,
}

impl Verdict {
    fn text(&self) -> String {
        match (&self.skipped, self.wrong.len()) {
            (Some(_), _) => "skipped".to_owned(),
            (None, 0) => format!("clean ({})", self.rounds),
            (None, wrong) => format!("**{wrong} of {} unclean**", self.rounds),
        }
    }
}

/// The page, but for what it was run on.
#[must_use]
pub fn page(verdicts: &[Verdict], machine: &str) -> String {
    let rounds: u64 = verdicts.iter().map(|verdict| verdict.rounds).sum();
    let inside: u64 = verdicts.iter().map(|verdict| verdict.inside).sum();
    let mut page = INTRODUCTION.to_owned();
    // Writing to a String cannot fail.
    let _ = writeln!(
        page,
        "{rounds} rounds in {} cells; in {inside} of them the fault came inside the step, in the \
         others just behind it. {machine}\n",
        verdicts.len()
    );
    table(&mut page, verdicts);
    let wrong: BTreeSet<String> = verdicts
        .iter()
        .flat_map(|verdict| verdict.wrong.iter().map(|text| (verdict.cell, text)))
        .map(|(cell, text)| format!("- `{cell}`: {}", text.lines().next().unwrap_or_default()))
        .collect();
    let skipped: BTreeSet<String> = verdicts
        .iter()
        .filter_map(|verdict| Some(format!("- `{}`: {}", verdict.cell, verdict.skipped.as_ref()?)))
        .collect();
    for (title, lines) in [("Unclean", wrong), ("Skipped", skipped)] {
        if !lines.is_empty() {
            let lines: Vec<String> = lines.into_iter().collect();
            let _ = write!(page, "\n## {title}\n\n{}\n", lines.join("\n"));
        }
    }
    page.push_str(ROWS);
    page
}

fn table(page: &mut String, verdicts: &[Verdict]) {
    let heads: Vec<&str> = Step::ALL.iter().map(|step| step.name()).collect();
    let _ = writeln!(page, "| | {} |\n|---|{}", heads.join(" | "), "---|".repeat(heads.len()));
    for fault in Fault::all() {
        let cells = Step::ALL.map(|step| {
            let found = verdicts.iter().find(|v| v.cell == Cell { fault, step });
            match (found, fault.impossible(step)) {
                (Some(verdict), _) => verdict.text(),
                (None, Some(why)) => why.to_owned(),
                (None, None) => "not run".to_owned(),
            }
        });
        let _ = writeln!(page, "| `{}` | {} |", fault.name(), cells.join(" | "));
    }
}

const INTRODUCTION: &str = "\
# Faults

What is left of a container when something around it breaks, at every step of its life. Written by
`cargo xtask faults`; `cargo test` plays the same cells with fewer rounds.

Each round is a life of its own: `start`, Create, Start, a look at the running container, an exec,
Kill and Delete. The fault comes inside the step that heads the column. A blow comes a little later
in each round, from the step's first moment to its last; what runs out runs out a little later in
each round, too. A round is clean when

- each call answers, or fails with an error, within ten seconds, unless it waits for a stopped
  process;
- a fault that takes nothing away (a process that goes on, a reader, signals, slowness) leaves no
  trace: the step succeeds, and the life goes on to its end;
- a shim that lives makes and deletes a fresh container afterwards;
- the end of the container is told once, with exit status 137;
- the user's Kill, Delete, Shutdown and the shim's `delete` take at most five seconds in all;
- no process, mount, cgroup, socket, fifo or file is left, in namespaces where nobody else is.

";

const ROWS: &str = "
## The rows

| row | what happens |
|---|---|
| `shim-kill` | SIGKILL to the serving process; in a bootstrap's every other round to the process that `start` is |
| `shim-stop` | SIGSTOP to it; a call waits; then it goes on and answers, or in every other round is killed |
| `stem-kill` | SIGKILL to the process from which the others are cloned |
| `stem-stop` | SIGSTOP to it, then SIGCONT or SIGKILL in turns |
| `container-kill` | SIGKILL to the container's first process, also while it is being made |
| `container-stop` | SIGSTOP to it, then SIGCONT or SIGKILL in turns |
| `containerd-kill` | containerd's side dies: the events service gets SIGKILL, the connection is dropped with its calls, a `start` on its way dies too; it comes back at once |
| `containerd-stop` | the events service gets SIGSTOP for the rest of the step; calls must not wait for it |
| `logger-kill` | the reader of the shim's log closes it, and comes back |
| `logger-stop` | it does not read, and the fifo is full |
| `reader-kill` | the reader of the container's output closes it while the container prints 300 kB, and comes back: nothing is lost |
| `reader-stop` | it does not read; all pipes fill; it reads on: nothing is lost |
| `no-disk` | the file system of the bundle is full but for n pages |
| `no-descriptors` | RLIMIT_NOFILE of shim and stem leaves n descriptors |
| `no-memory` | a memory cgroup leaves shim and stem 64 KiB, doubled each round; the kernel may kill them for it |
| `no-pids` | a pids cgroup leaves shim and stem n processes more |
| `no-quiet` | SIGCHLD, SIGWINCH and SIGURG to shim and stem, thousands a second |
| `no-time` | a millisecond of CPU time in every 10 to 40, and SIGSTOP and SIGCONT at odd moments |

What runs out during the bootstrap is held back from the process that `start` is, and so from all
that it makes.
";
