//! Chores of this repository: `cargo xtask CHORE`.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool")]

mod bench;
mod build;
mod ci;
mod conform;
mod coverage;
mod faults;
mod flame;
mod fuzz;
mod guest;
mod mutants;
mod peers;
mod run;
mod sh;
mod soak;
mod tidy;

use std::process::ExitCode;

const USAGE: &str = "\
Usage: cargo xtask CHORE

  build        the shim and shimctl as users run them: optimised, the shim static
  run ARGS..   build, then run a container with no containerd: `shimctl run ARGS..`
  ci           all checks: format, lints, tidy, docs, tests
  tidy         the rules of this repository that no compiler checks
  bench [--quick]
               our shim beside its peers and the floor; writes docs/performance.md
  flame        where a life's time goes; writes docs/flame-*.svg. Needs perf
  fuzz [T [S]] a fuzz target or all, for so many seconds
  guest [--keep] [--limit SECONDS] [--with PATH].. CMD..
               a command in a virtual machine with systemd and cgroup v2: docs/test-bed.md
  mutants [CLASS..]
               takes each check against a class of holes out, and sees tests fail; writes
               docs/security.md
  conform      the conformance suite against our shim and its peers; writes docs/conformance.md
  faults       every fault at every step of a container's life; writes docs/faults.md
  soak         ten thousand containers through one shim; writes docs/soak.md";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments.as_slice() {
        ["build"] => build::build(),
        ["run", rest @ ..] => run::run(rest),
        ["ci"] => ci::ci(),
        ["tidy"] => tidy::tidy(),
        ["bench", rest @ ..] => bench::bench(rest),
        ["flame"] => flame::flame(),
        ["fuzz", rest @ ..] => fuzz::fuzz(rest),
        ["guest", rest @ ..] => guest::guest(rest),
        ["mutants", rest @ ..] => mutants::mutants(rest),
        ["conform"] => conform::conform(),
        ["faults", rest @ ..] => faults::faults(rest),
        ["soak", rest @ ..] => soak::soak(rest),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(code) => code,
        Err(err) => {
            eprintln!("xtask: {err:#}");
            ExitCode::FAILURE
        }
    }
}
