//! Lines for people: on stdout what was asked for, on stderr what goes on.

use std::cell::Cell;
use std::io::{self, IsTerminal, Write};

use anyhow::{Context, Result};
use log::{Level, LevelFilter, Log, Metadata};

/// One line on stdout.
pub(super) fn line(text: &str) -> Result<()> {
    writeln!(io::stdout(), "{text}").context("write to stdout")
}

/// One line on stderr, with our name before it.
pub(super) fn line_to_stderr(text: &str) {
    // A raw terminal needs the carriage return, any other does not mind it.
    let end = if io::stderr().is_terminal() { "\r\n" } else { "\n" };
    // Without a stderr there is nobody to tell.
    let _ = write!(io::stderr(), "shimctl: {text}{end}");
}

/// Sends the log to stderr: warnings always, each step if asked, all of ttrpc's if asked twice.
pub(super) fn log_to_stderr(verbosity: u8) {
    static QUIET: Stderr = Stderr { level: LevelFilter::Warn, everyone: false };
    static STEPS: Stderr = Stderr { level: LevelFilter::Debug, everyone: false };
    static ALL: Stderr = Stderr { level: LevelFilter::Debug, everyone: true };
    let logger: &'static Stderr = match verbosity {
        0 => &QUIET,
        1 => &STEPS,
        _ => &ALL,
    };
    // It fails if there is a logger already, and there is none before main.
    let _ = log::set_logger(logger);
    log::set_max_level(logger.level);
}

struct Stderr {
    level: LevelFilter,
    /// Whether libraries speak too.
    everyone: bool,
}

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= self.level
            && (self.everyone || metadata.target().starts_with("shimctl"))
    }

    fn log(&self, record: &log::Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        match record.level() {
            Level::Error | Level::Warn => line_to_stderr(&format!("warning: {}", record.args())),
            _ => line_to_stderr(&record.args().to_string()),
        }
    }

    fn flush(&self) {}
}

/// The progress of an image's unpacking, on one line of a terminal.
pub(super) struct ProgressLine {
    shown: Cell<Option<(usize, u64)>>,
}

impl ProgressLine {
    pub(super) fn new() -> Self {
        Self { shown: Cell::new(None) }
    }

    /// Shows the state if it differs by a MiB from what stands there.
    pub(super) fn show(&self, layer: usize, layers: usize, bytes: u64) {
        let now = (layer, bytes >> 20);
        if self.shown.get() == Some(now) || !io::stderr().is_terminal() {
            return;
        }
        self.shown.set(Some(now));
        let _ = write!(
            io::stderr(),
            "\rshimctl: unpacking layer {} of {layers}, {} MiB \x1b[K",
            layer + 1,
            now.1
        );
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        if self.shown.get().is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
