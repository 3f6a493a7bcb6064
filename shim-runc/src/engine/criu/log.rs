//! What CRIU's log says of a failure.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
};

/// How much of a log's end is looked at, in bytes.
const TAIL: u64 = 64 << 10;
/// How many of the last errors are told: the first of them is the cause, the others what it led to.
const MOST: usize = 4;

/// The last errors in a log, in one line; empty when there is none.
pub(super) fn errors(path: &Path) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
        let mut bytes = Vec::new();
        file.take(TAIL).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map(|bytes| of_text(&String::from_utf8_lossy(&bytes))).unwrap_or_default()
}

/// A line of the log is `(seconds) Error (file:line): what`, with pids in front where several write.
fn of_text(text: &str) -> String {
    let mut found: Vec<&str> = text.lines().filter_map(told).collect();
    found.dedup();
    found[found.len().saturating_sub(MOST)..].join("; ")
}

fn told(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("Error (")?;
    let (_, what) = rest.split_once("): ")?;
    Some(what.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_errors_are_told_without_where_they_are_from() {
        let text = "(00.01) Warn  (criu/kerndat.c:1290): no cache\n\
                    (00.02) Error (criu/util.c:1534): rlimit: one\n\
                    (00.03) 1: Error (criu/sk-unix.c:839): unix: External socket is used.\n\
                    (00.03) 1: Error (criu/sk-unix.c:839): unix: External socket is used.\n\
                    (00.04) pie: 1: nothing\n";
        assert_eq!(of_text(text), "rlimit: one; unix: External socket is used.");
        let many: String = (0..9).map(|n| format!("(0) Error (x.c:1): e{n}\n")).collect();
        assert_eq!(of_text(&many), "e5; e6; e7; e8");
        assert_eq!(of_text(""), "");
        assert_eq!(errors(Path::new("/nowhere/dump.log")), "");
    }
}
