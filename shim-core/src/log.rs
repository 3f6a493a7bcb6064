//! Logs as containerd reads them: logrus text, a line each, into the bundle's `log` fifo.
//!
//! containerd copies the fifo to its own stderr. When it is away nobody empties the fifo, and a shim
//! that waited there would hang its containers: a line that does not fit is dropped and counted.

use std::{
    fmt::Write as _,
    fs::{File, OpenOptions},
    io::Write as _,
    os::unix::fs::OpenOptionsExt,
    panic,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use log::{Level, LevelFilter, Log, Metadata, Record, kv};

struct Fifo {
    file: File,
    /// The fields of every line.
    about: String,
    dropped: AtomicU64,
}

/// Sends all logs of this process to the fifo. Without one there are no logs.
pub(crate) fn install(fifo: &Path, runtime: &str, id: &str, debug: bool) {
    // Open for reading too: it never lacks a reader then, and survives containerd's restart.
    let opened =
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(fifo);
    let Ok(file) = opened else { return };
    let about = format!(" id={} runtime={}", quoted(id), quoted(runtime));
    let logger = Box::new(Fifo { file, about, dropped: AtomicU64::new(0) });
    if log::set_boxed_logger(logger).is_ok() {
        log::set_max_level(if debug { LevelFilter::Debug } else { LevelFilter::Info });
    }
    panic::set_hook(Box::new(|told| log::error!("{told}")));
}

impl Log for Fifo {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // ttrpc tells every message at this level; nobody has asked for that.
        metadata.level() <= log::max_level()
            && !(metadata.target().starts_with("ttrpc") && metadata.level() > Level::Warn)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let lost = self.dropped.swap(0, Ordering::Relaxed);
        let mut text = line(record, SystemTime::now(), &self.about);
        if lost > 0 {
            text.insert_str(text.len() - 1, &format!(" dropped={lost}"));
        }
        // A write to a pipe of less than a page is whole or not at all (pipe(7)).
        if (&self.file).write_all(text.as_bytes()).is_err() {
            self.dropped.fetch_add(lost + 1, Ordering::Relaxed);
        }
    }

    fn flush(&self) {}
}

fn line(record: &Record<'_>, at: SystemTime, about: &str) -> String {
    let level = match record.level() {
        Level::Error => "error",
        Level::Warn => "warning",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    };
    let mut message = record.args().to_string();
    if message.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|&at| message.is_char_boundary(at)).unwrap_or(0);
        message.truncate(end);
    }
    let mut line =
        format!("time=\"{}\" level={level} msg={}{about}", rfc3339(at), quoted(&message));
    // A visitor that can't fail.
    let _all = record.key_values().visit(&mut Fields(&mut line));
    line.push('\n');
    line
}

/// The longest message that surely leaves room for the rest of a line in a page.
const LONGEST: usize = 2048;

struct Fields<'a>(&'a mut String);

impl<'kvs> kv::VisitSource<'kvs> for Fields<'_> {
    fn visit_pair(&mut self, key: kv::Key<'kvs>, value: kv::Value<'kvs>) -> Result<(), kv::Error> {
        let value = quoted(&value.to_string()).into_owned();
        write!(self.0, " {key}={value}").map_err(Into::into)
    }
}

/// Quotes what logrus quotes: all but letters, digits and a few signs.
fn quoted(text: &str) -> std::borrow::Cow<'_, str> {
    let plain = !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._/@^+".contains(&b));
    if plain { text.into() } else { format!("{text:?}").into() }
}

/// A UTC time stamp with nanoseconds, RFC 3339.
fn rfc3339(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let nanos = since.subsec_nanos();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
}

/// Year, month and day of a day since 1970, in the Gregorian calendar. Years are counted from March,
/// so that the leap day is the last of its year and months follow a pattern of 153 days in five.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_line_is_logrus_text() {
        let at = UNIX_EPOCH + Duration::new(951_782_400, 5);
        let record =
            Record::builder().level(Level::Warn).args(format_args!("two words \"quoted\"")).build();
        let expected = "time=\"2000-02-29T00:00:00.000000005Z\" level=warning \
                        msg=\"two words \\\"quoted\\\"\" id=t1\n";
        assert_eq!(line(&record, at, " id=t1"), expected);
    }

    #[test]
    fn time_stamps_follow_the_calendar() {
        let date = |secs| rfc3339(UNIX_EPOCH + Duration::from_secs(secs));
        assert_eq!(date(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(date(1_709_251_199), "2024-02-29T23:59:59.000000000Z");
        assert_eq!(date(4_107_542_400), "2100-03-01T00:00:00.000000000Z");
    }
}
