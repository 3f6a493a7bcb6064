//! `cargo xtask conform`: the conformance suite against our shim and its peers, and the table of who
//! passes what.
//!
//! A MUST that one of containerd's own shims fails has been looked at twice: what came of it stands
//! in `conformance/verdicts.txt`, and one that is missing there fails this chore.

mod page;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{build, peers::Peers, sh};

/// Every generation that the suite can be.
const GENERATIONS: [&str; 5] = ["1.6", "1.7", "2.0", "2.2", "2.3"];

/// A shim, as one generation of containerd runs it.
struct Subject {
    /// What the table calls it.
    name: String,
    shim: PathBuf,
    options: Vec<String>,
    generation: &'static str,
    /// Whether its failures need a verdict.
    is_reference: bool,
    is_ours: bool,
}

/// One subject's report, as `shimctl conform --report json` writes it.
struct Judged {
    subject: Subject,
    report: Value,
}

/// Judges all shims and writes `docs/conformance.md`.
pub(crate) fn conform() -> Result<ExitCode> {
    build::shim()?;
    build::shimctl()?;
    let verdicts = read_verdicts()?;
    let mut judged = Vec::new();
    for subject in subjects()? {
        judged.push(judge(subject)?);
    }
    let path = sh::root().join("docs/conformance.md");
    fs::write(&path, page::write(&judged, &verdicts))
        .with_context(|| format!("write {}", path.display()))?;
    println!("wrote {}", path.display());

    let unexplained = unexplained(&judged, &verdicts);
    ensure!(unexplained.is_empty(), "no verdict on: {}", unexplained.join(", "));
    let broken = judged.iter().filter(|one| one.subject.is_ours).any(|one| one.count("failed") > 0);
    Ok(if broken { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn subjects() -> Result<Vec<Subject>> {
    let peers = Peers::fetch()?;
    let with_runc = vec![format!("BinaryName={}", peers.path("runc")?.display())];

    let native = sh::target().join("release/containerd-shim-native-v2");
    let mut subjects: Vec<Subject> = GENERATIONS
        .map(|generation| Subject {
            name: format!("native as {generation}"),
            shim: native.clone(),
            options: Vec::new(),
            generation,
            is_reference: false,
            is_ours: true,
        })
        .into();
    for (engine, generation, version) in
        [("engine16", "1.6", "1.6.20"), ("engine17", "1.7", "1.7.24"), ("engine2", "2.0", "2.1.9")]
    {
        subjects.push(Subject {
            name: format!("Go {version}"),
            shim: peers.path(engine)?.into(),
            options: with_runc.clone(),
            generation,
            is_reference: true,
            is_ours: false,
        });
    }
    subjects.push(Subject {
        name: "Rust 0.2.0".to_owned(),
        shim: peers.path("rust")?.into(),
        options: with_runc,
        generation: "2.0",
        is_reference: false,
        is_ours: false,
    });
    Ok(subjects)
}

fn judge(subject: Subject) -> Result<Judged> {
    println!("== {}", subject.name);
    let file = sh::target().join("conform.json");
    // A report of another shim must not be taken for this one's.
    let _ = fs::remove_file(&file);
    let mut shimctl = Command::new(sh::target().join("release/shimctl"));
    shimctl.args(["--as", subject.generation, "conform", "--report", "json"]);
    shimctl.arg("--output").arg(&file).arg("--shim").arg(&subject.shim);
    for option in &subject.options {
        shimctl.arg("--option").arg(option);
    }
    sh::status(&mut shimctl)?;
    let text = fs::read(&file).with_context(|| format!("read {}", file.display()))?;
    Ok(Judged { subject, report: serde_json::from_slice(&text).context("parse the report")? })
}

impl Judged {
    fn count(&self, outcome: &str) -> u64 {
        self.report[outcome].as_u64().unwrap_or_default()
    }

    fn cases(&self) -> impl Iterator<Item = &Value> {
        self.report["cases"].as_array().into_iter().flatten()
    }
}

/// Group and name of a case.
fn id(case: &Value) -> String {
    let part = |name: &str| case[name].as_str().unwrap_or_default().to_owned();
    format!("{}.{}", part("group"), part("name"))
}

fn is_broken_must(case: &Value) -> bool {
    case["outcome"] == "failed" && case["level"] == "MUST"
}

fn unexplained(judged: &[Judged], verdicts: &BTreeMap<String, String>) -> Vec<String> {
    let references = judged.iter().filter(|one| one.subject.is_reference);
    let broken = references.flat_map(Judged::cases).filter(|case| is_broken_must(case)).map(id);
    let mut missing: Vec<String> = broken.filter(|id| verdict(verdicts, id).is_none()).collect();
    missing.sort();
    missing.dedup();
    missing
}

/// The verdict on a case, or else on its whole group.
fn verdict<'a>(verdicts: &'a BTreeMap<String, String>, id: &str) -> Option<&'a str> {
    let group = id.split('.').next().unwrap_or_default();
    verdicts.get(id).or_else(|| verdicts.get(&format!("{group}.*"))).map(String::as_str)
}

/// A line a case: its id, a colon, the verdict. `events.*` is for what any case of a group may meet.
fn read_verdicts() -> Result<BTreeMap<String, String>> {
    let path: &Path = &sh::root().join("conformance/verdicts.txt");
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (id, verdict) = line
                .split_once(": ")
                .with_context(|| format!("{}: no verdict in {line:?}", path.display()))?;
            Ok((id.to_owned(), verdict.to_owned()))
        })
        .collect()
}
