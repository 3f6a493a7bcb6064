//! What a container wrote, as CRI keeps it: a line a line, with its time and stream.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// A piece of output.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Line {
    /// `stdout` or `stderr`.
    pub stream: String,
    /// Whether a line ended here; a longer one than fits is cut.
    pub is_whole: bool,
    /// The text without its end.
    pub text: String,
}

/// Reads a log.
///
/// # Errors
/// When there is none, or it holds something else.
pub fn read(file: &Path) -> Result<Vec<Line>> {
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    text.lines().map(|line| parse(line).with_context(|| format!("an odd line: {line:?}"))).collect()
}

/// `TIME STREAM TAG TEXT`; the tag is `F` for the end of a line and `P` for a part of one.
fn parse(line: &str) -> Option<Line> {
    let mut parts = line.splitn(4, ' ');
    // RFC 3339, with nanoseconds.
    parts.next().filter(|time| time.contains('T'))?;
    let stream = parts.next()?.to_owned();
    let is_whole = match parts.next()? {
        "F" => true,
        "P" => false,
        _ => return None,
    };
    Some(Line { stream, is_whole, text: parts.next()?.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_a_time_a_stream_and_a_tag() {
        let line = parse("2026-01-02T03:04:05.678901234Z stderr P a b");
        let expect = Line { stream: "stderr".into(), is_whole: false, text: "a b".into() };
        assert_eq!(line, Some(expect));
        assert_eq!(parse("stdout F no time"), None);
    }
}
