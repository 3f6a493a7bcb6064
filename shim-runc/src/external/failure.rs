//! What a runtime has to say about its failure: the one outside text that is read for its meaning.
//!
//! It logs JSON, an object for each message: runc one a line, crun one over many lines, runsc
//! without an end between them, youki with `message` for `msg`. One that is told `--log-format json`
//! may write text all the same.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
};

use serde::Deserialize;
use shim_core::Kind;

/// How much of a log's end is looked at, in bytes.
const TAIL: u64 = 64 << 10;
/// The longest message that is passed on, in bytes.
const LONGEST: usize = 4 << 10;

/// A message as runtimes write it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Entry {
    level: String,
    #[serde(alias = "message")]
    msg: String,
    /// Of a log of Rust's `tracing` that is not flattened.
    fields: Fields,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Fields {
    message: String,
}

/// The last error in a log file, if there is one.
pub(super) fn last_error(path: &Path) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL))).ok()?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes).ok()?;
    of_text(&String::from_utf8_lossy(&bytes))
}

/// Reads a text as a log and as a message, for fuzzers.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn read_log(text: &str) {
    if let Some(message) = of_text(text) {
        assert!(message.len() <= LONGEST + '…'.len_utf8(), "{} bytes", message.len());
        let _meaning = (kind(&message), is_usage(&message));
    }
}

fn of_text(text: &str) -> Option<String> {
    let mut found = None;
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let length = match of_json(rest) {
            Some((entry, length)) => {
                found = entry.grave().or(found);
                length
            }
            None => {
                let line = rest.lines().next().unwrap_or_default();
                found = of_words(line.trim_end()).or(found);
                line.len()
            }
        };
        rest = rest.get(length..).unwrap_or_default().trim_start();
    }
    found.map(shortened)
}

/// The object at the beginning of a text, and its length.
fn of_json(text: &str) -> Option<(Entry, usize)> {
    // Numbers and strings would do, too, for all that the parser knows.
    text.starts_with('{').then_some(())?;
    let mut entries = serde_json::Deserializer::from_str(text).into_iter::<Entry>();
    let entry = entries.next()?.ok()?;
    Some((entry, entries.byte_offset()))
}

impl Entry {
    fn grave(self) -> Option<String> {
        let message = if self.msg.is_empty() { self.fields.message } else { self.msg };
        (is_grave(&self.level) && !message.is_empty()).then_some(message)
    }
}

/// `time="…" level=error msg="…"`, or a line that is no such thing.
fn of_words(line: &str) -> Option<String> {
    let Some((head, tail)) = line.split_once(" msg=") else {
        // Half an object, at the beginning of what is looked at or at its end, says nothing.
        let is_torn = line.starts_with(['{', '"', '}']) || line.ends_with('}');
        return (!is_torn).then(|| line.to_owned());
    };
    let level = head.split(' ').find_map(|word| word.strip_prefix("level="))?;
    // It is quoted as Go quotes, which is near enough to JSON's way.
    let unquoted = serde_json::from_slice::<String>(tail.as_bytes());
    is_grave(level).then(|| unquoted.unwrap_or_else(|_| tail.trim_matches('"').to_owned()))
}

fn is_grave(level: &str) -> bool {
    ["error", "fatal", "panic"].iter().any(|grave| level.eq_ignore_ascii_case(grave))
}

fn shortened(mut message: String) -> String {
    if message.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|end| message.is_char_boundary(*end));
        message.truncate(end.unwrap_or_default());
        message.push('…');
    }
    message.trim_end().to_owned()
}

/// What a client can do about a failure.
pub(super) fn kind(message: &str) -> Kind {
    let sentences = [
        (Kind::AlreadyExists, TAKEN.as_slice()),
        (Kind::NotFound, GONE.as_slice()),
        (Kind::FailedPrecondition, WRONG.as_slice()),
    ];
    let said = |parts: &[&str]| parts.iter().any(|part| message.contains(part));
    let found = sentences.into_iter().find(|(_, parts)| said(parts));
    found.map_or(Kind::Other, |(kind, _)| kind)
}

/// Whether what was printed explains how a runtime is called, for want of a verb.
pub(super) fn is_usage(printed: &str) -> bool {
    printed.trim_start_matches([':', ' ']).starts_with("Usage:")
}

/// Of runc, crun, youki and runsc, each in its own words.
const TAKEN: [&str; 2] = ["container with id exists", "already exists"];
const GONE: [&str; 6] = [
    "container does not exist",
    "` does not exist",
    "loading container: file does not exist",
    "process already finished",
    "no such process",
    "No such process",
];
const WRONG: [&str; 4] =
    ["not running", "is not paused", "container not paused", "stopped container"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_counts_whoever_wrote_it() {
        for (text, expected) in [
            (
                "{\"level\":\"warning\",\"msg\":\"w\",\"time\":\"t\"}\n\
                 {\"level\":\"error\",\"msg\":\"runc create failed: \\\"x\\\"\",\"time\":\"t\"}\n",
                Some("runc create failed: \"x\""),
            ),
            (
                // Go's runtimes log what happens after the failure, too.
                "{\"level\":\"error\",\"msg\":\"first\"}\n{\"level\":\"info\",\"msg\":\"later\"}\n",
                Some("first"),
            ),
            ("{\"msg\":\"a\",\"level\":\"error\"}{\"msg\":\"b\",\"level\":\"error\"}", Some("b")),
            (
                "{\"timestamp\":\"t\",\"level\":\"ERROR\",\"message\":\"of youki\"}",
                Some("of youki"),
            ),
            ("{\"level\":\"ERROR\",\"fields\":{\"message\":\"deep\"}}", Some("deep")),
            ("time=\"2026\" level=error msg=\"text \\\"quoted\\\"\"\n", Some("text \"quoted\"")),
            ("time=\"2026\" level=warning msg=\"text\"\n", None),
            ("runtime: no such flag\n\n", Some("runtime: no such flag")),
            ("\"level\":\"error\",\"msg\":\"half\"}\n{\"level\":\"debug\",\"msg\":\"d\"}", None),
            ("{\"level\":\"debug\",\"msg\":\"d\"}\n", None),
            (
                "{\n  \"msg\": \"over lines\",\n  \"level\": \"error\"\n}\n{\n  \"msg\": \"w\",\n  \
                 \"level\": \"warning\"\n}\n",
                Some("over lines"),
            ),
            ("  \"level\": \"error\",\n  \"time\": \"t\"\n}\n", None),
            ("{\"level\":\"error\",\"msg\":\"cut\"}{\"level\":\"err", Some("cut")),
            ("", None),
        ] {
            assert_eq!(of_text(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn a_log_of_any_size_is_read_from_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        assert_eq!(last_error(&path), None);
        let noise = "{\"level\":\"info\",\"msg\":\"noise\"}\n".repeat(10_000);
        let message = "ü".repeat(LONGEST);
        let end = format!("{{\"level\":\"error\",\"msg\":\"{message}\"}}\n");
        std::fs::write(&path, noise + &end).unwrap();
        let told = last_error(&path).unwrap();
        assert!(told.len() <= LONGEST + 3 && told.ends_with("ü…"), "{}", told.len());
        std::fs::write(&path, b"\xff\xfe bytes\n").unwrap();
        assert!(last_error(&path).unwrap().ends_with("bytes"));
    }

    #[test]
    fn sentences_of_runtimes_have_kinds() {
        for (message, expected) in [
            ("container with id exists: c1", Kind::AlreadyExists),
            ("container with given ID already exists", Kind::AlreadyExists),
            ("container `c1` already exists", Kind::AlreadyExists),
            ("container does not exist", Kind::NotFound),
            ("container `c1` does not exist", Kind::NotFound),
            ("loading container: file does not exist", Kind::NotFound),
            ("os: process already finished", Kind::NotFound),
            ("kill process: No such process", Kind::NotFound),
            ("container not running", Kind::FailedPrecondition),
            ("the container `c1` is not running", Kind::FailedPrecondition),
            ("cannot exec in a stopped container", Kind::FailedPrecondition),
            ("exec: \"/nope\": stat /nope: no such file or directory", Kind::Other),
        ] {
            assert_eq!(kind(message), expected, "{message}");
        }
    }
}
