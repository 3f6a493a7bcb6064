//! `cargo xtask tidy`: the rules of this repository that no compiler checks.
//!
//! - Dependencies point one way: who judges shims knows none, the framework names no backend.
//! - Only the edge of the framework knows the wire.
//! - `unsafe` stands in named places.
//! - Every module says what it is for; no file grows past reading.
//! - Every dependency's licence is one we can ship.
//! - Every field of the OCI runtime spec is told of, with a test.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{coverage, sh};

/// A crate and those it must not depend on, at any distance.
const FORBIDDEN: &[(&str, &[&str])] = &[
    (
        "shim-protos",
        &["shim-core", "shim-runc", "shim-sandbox", "shim-client", "shimctl", "conformance"],
    ),
    ("shim-core", &["shim-runc", "shim-sandbox", "shim-client", "shimctl", "conformance"]),
    ("shim-runc", &["shim-sandbox", "shim-client", "shimctl", "conformance"]),
    ("shim-sandbox", &["shim-client", "shimctl", "conformance"]),
    ("shim-client", &["shim-core", "shim-runc", "shim-sandbox", "conformance", "shimctl"]),
    ("conformance", &["shim-core", "shim-runc", "shim-sandbox", "shimctl"]),
    ("shimctl", &["shim-core", "shim-runc", "shim-sandbox"]),
];

/// Where the framework may know ttrpc and the messages.
const WIRE: &[&str] = &["shim-core/src/service/", "shim-core/src/event/", "shim-core/src/entry/"];

/// Where `unsafe` may stand.
const UNSAFE: &[&str] = &[
    "shim-core/src/linux/sys.rs",
    "shim-runc/src/engine/sys/",
    "shim-runc/src/engine/execute/",
    "shim-runc/src/engine/stem/",
    "shim-runc/src/engine/cgroup/bpf.rs",
    "shim-runc/tests/engine/agent.rs",
];

const LONGEST_FILE: usize = 400;

const LICENCES: &[&str] = &[
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
    "0BSD",
    "Apache-2.0 WITH LLVM-exception",
];

/// Prints what is wrong, if anything.
pub(crate) fn tidy() -> Result<ExitCode> {
    check()?;
    println!("tidy");
    Ok(ExitCode::SUCCESS)
}

/// Checks all rules.
pub(crate) fn check() -> Result<()> {
    let sources = sources()?;
    let mut wrong = Vec::new();
    for (path, text) in &sources {
        wrong.extend(module_says_what_it_is_for(path, text));
        wrong.extend(file_is_short(path, text));
        wrong.extend(unsafe_is_where_it_may_be(path, text));
        wrong.extend(wire_is_where_it_may_be(path, text));
        wrong.extend(nothing_is_left_open(path, text));
    }
    wrong.extend(coverage::check(&sh::root(), &sources)?);
    wrong.extend(dependencies_point_one_way()?);
    wrong.extend(licences_are_ours_to_ship()?);
    ensure!(wrong.is_empty(), "{} untidy:\n  {}", wrong.len(), wrong.join("\n  "));
    Ok(())
}

/// Every Rust file that git knows or would, by its path from the top.
fn sources() -> Result<Vec<(String, String)>> {
    let mut list = std::process::Command::new("git");
    list.current_dir(sh::root()).args(["ls-files", "-co", "--exclude-standard", "*.rs"]);
    let mut sources = Vec::new();
    for path in sh::output(&mut list)?.lines() {
        let file: PathBuf = sh::root().join(path);
        if Path::exists(&file) {
            let text = fs::read_to_string(&file).with_context(|| format!("read {path}"))?;
            sources.push((path.to_owned(), text));
        }
    }
    Ok(sources)
}

fn module_says_what_it_is_for(path: &str, text: &str) -> Option<String> {
    let first = text.lines().find(|line| !line.starts_with("#!["))?;
    (!first.starts_with("//!")).then(|| format!("{path}: no //! says what the module is for"))
}

fn file_is_short(path: &str, text: &str) -> Option<String> {
    let code = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or(text);
    let lines = code.lines().count();
    (lines > LONGEST_FILE && !is_table(text) && !is_test(path))
        .then(|| format!("{path}: {lines} lines, more than {LONGEST_FILE}"))
}

/// Tests read from top to bottom, and may look at the kernel as they need.
fn is_test(path: &str) -> bool {
    path.contains("tests/") || path.ends_with("tests.rs")
}

/// A file that is one long table says so in its head.
fn is_table(text: &str) -> bool {
    text.lines().take_while(|line| line.starts_with("//!")).any(|line| line.contains("a table"))
}

fn unsafe_is_where_it_may_be(path: &str, text: &str) -> Option<String> {
    let has = text.lines().any(|line| {
        let code = line.split("//").next().unwrap_or(line);
        code.contains("unsafe {") || code.contains("unsafe fn") || code.contains("unsafe impl")
    });
    let allowed = UNSAFE.iter().any(|place| path.starts_with(place))
        || is_test(path)
        || path.starts_with("xtask/");
    (has && !allowed).then(|| format!("{path}: unsafe outside its places"))
}

fn wire_is_where_it_may_be(path: &str, text: &str) -> Option<String> {
    let knows = text.contains("ttrpc::") || text.contains("shim_protos");
    let framework = path.starts_with("shim-core/src/");
    let allowed = WIRE.iter().any(|place| path.starts_with(place));
    (framework && knows && !allowed).then(|| format!("{path}: knows the wire"))
}

fn nothing_is_left_open(path: &str, text: &str) -> Option<String> {
    // Put together here, so that this file holds none of them itself.
    let open = [("todo", "!("), ("unimplemented", "!("), ("#[", "ignore")];
    let open = open.map(|(start, end)| format!("{start}{end}"));
    let found = open.iter().find(|word| text.contains(*word))?;
    Some(format!("{path}: {found} is left open"))
}

fn dependencies_point_one_way() -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for (name, forbidden) in FORBIDDEN {
        let tree = ["tree", "--package", name, "--edges", "normal", "--prefix", "none"];
        let tree = sh::output(sh::cargo().args(tree))?;
        let found = tree.lines().filter_map(|line| line.split_whitespace().next());
        let found = found.filter(|dependency| forbidden.contains(dependency));
        wrong.extend(found.map(|dependency| format!("{name} depends on {dependency}")));
    }
    Ok(wrong)
}

fn licences_are_ours_to_ship() -> Result<Vec<String>> {
    let metadata =
        sh::output(sh::cargo().args(["metadata", "--all-features", "--format-version", "1"]))?;
    let metadata: Value = serde_json::from_str(&metadata)?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists packages")?;
    Ok(packages.iter().filter_map(licence_is_wrong).collect())
}

fn licence_is_wrong(package: &Value) -> Option<String> {
    let licence = package["license"].as_str().unwrap_or("none");
    // One of the alternatives is enough.
    let known = licence.split(" OR ").flat_map(|part| part.split('/')).any(|part| {
        part.split(" AND ").all(|one| LICENCES.contains(&one.trim_matches(['(', ')', ' '])))
    });
    (!known).then(|| format!("{}: licence {licence}", package["name"]))
}
