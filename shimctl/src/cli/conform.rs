//! `shimctl conform`: judges a shim by the cases of the conformance suite.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use conformance::{Finished, Format, Outcome, Report, Subject, Suite};
use shim_client::{Generation, ShimBinary, runtime_options};

use super::{Global, print};
use crate::values::parse_pair;

/// What a broken contract exits with.
const BROKEN: u8 = 1;

/// Judge whether a shim keeps containerd's contract
///
/// Starts the shim as the chosen generation of containerd does, takes it through every case, and
/// tells which sentence of the contract it breaks. The exit status is 1 when that is a MUST.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  shimctl conform --shim ./containerd-shim-mine-v1
  shimctl conform --shim io.containerd.runc.v2 --option BinaryName=/usr/bin/crun --as 1.7
  shimctl conform --shim ./mine --filter exec --filter '!stdio' --report junit --output exec.xml
  shimctl conform --list")]
pub(super) struct Arguments {
    /// The shim: containerd's name for its runtime, or a path
    #[arg(long, value_name = "SHIM", required_unless_present = "list")]
    shim: Option<String>,
    /// A runtime option, such as BinaryName=/usr/bin/crun
    #[arg(long = "option", value_name = "KEY=VALUE", value_parser = parse_pair)]
    options: Vec<(String, String)>,
    /// Only cases with this in their name; with a ! in front, all but those
    #[arg(long, value_name = "PART")]
    filter: Vec<String>,
    /// The form of the report: table, json or junit
    #[arg(long, value_name = "FORM", default_value = "table")]
    report: Format,
    /// Write the report to a file; progress and the last line still go to the terminal
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Act like every generation, one after the other
    #[arg(long)]
    all: bool,
    /// List the cases with their sentences, and run none
    #[arg(long)]
    list: bool,
}

/// What has to be done while the process has one thread.
pub(super) fn prepare(arguments: &Arguments) -> Result<()> {
    if arguments.list { Ok(()) } else { conformance::isolate() }
}

pub(super) async fn conform(global: &Global, arguments: &Arguments) -> Result<u8> {
    let Some(shim) = arguments.shim.as_ref().filter(|_| !arguments.list) else { return list() };
    let binary = ShimBinary::resolve(shim)?;
    let options = runtime_options(&binary, &arguments.options)?;
    let subject = Subject { name: shim.clone(), binary, options };
    let generations =
        if arguments.all { Generation::ALL.to_vec() } else { vec![global.generation] };
    let mut text = String::new();
    let mut is_broken = false;
    for generation in generations {
        let report = judge(&subject, generation, arguments).await?;
        is_broken |= report.breaks_the_contract();
        text.push_str(&report.to_text(arguments.report));
        if arguments.output.is_some() {
            print::line(&format!("as under containerd {generation}: {report}"))?;
        }
    }
    match &arguments.output {
        Some(path) => {
            fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
        }
        None => print::line(text.trim_end())?,
    }
    Ok(if is_broken { BROKEN } else { 0 })
}

fn list() -> Result<u8> {
    let cases = conformance::cases();
    for case in &cases {
        print::line(&format!("{:<7}{}\n       {}", case.level, case.id(), case.sentence))?;
    }
    print::line(&format!("{} cases", cases.len()))?;
    Ok(0)
}

async fn judge(subject: &Subject, generation: Generation, arguments: &Arguments) -> Result<Report> {
    // In a tmpfs of our own: nothing of it outlives this process.
    let folder = Path::new("/run/containerd").join(format!("conform-{}", std::process::id()));
    let filter = arguments.filter.clone();
    let suite = Suite { subject: subject.clone(), generation, filter, folder };
    let mut progress = Progress { done: 0, total: suite.selected().len() };
    let report = suite.run(&mut |one| progress.tell(one)).await?;
    progress.clear();
    Ok(report)
}

/// How far a run has come, on stderr: on a terminal one line that changes, else a line a failure.
struct Progress {
    done: usize,
    total: usize,
}

impl Progress {
    fn tell(&mut self, one: &Finished) {
        self.done += 1;
        let id = one.case.id();
        if io::stderr().is_terminal() {
            self.write(&format!("\r\x1b[K{}/{} {id}", self.done, self.total));
        }
        if let Outcome::Failed(why) = &one.outcome {
            self.clear();
            print::line_to_stderr(&format!("{}/{} {id}: {why}", self.done, self.total));
        }
    }

    fn clear(&self) {
        if io::stderr().is_terminal() {
            self.write("\r\x1b[K");
        }
    }

    fn write(&self, text: &str) {
        let mut stderr = io::stderr().lock();
        // Who cannot be told of progress is told of the end.
        let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
    }
}
