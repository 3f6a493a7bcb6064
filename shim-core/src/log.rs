//! Logs as containerd reads them: logrus text, a line each, into a bundle's `log` fifo.
//!
//! containerd copies the fifo to its own stderr. When it is away nobody empties the fifo, and a shim
//! that waited there would hang its containers: a line that does not fit is dropped and counted.
//!
//! A shim of many containers logs into the bundle of one of them, at first the one that it was
//! started for, and stands in that directory. When that container goes, another one's takes its
//! place: nobody reads the fifo of a bundle that is gone.

use std::{
    fmt::Write as _,
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt,
    panic,
    path::Path,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use log::{Level, LevelFilter, Log, Metadata, Record, kv};
use nix::unistd::chdir;

use crate::model::{Bundle, ContainerId};

/// The logger of this process: the log crate has one, and for ever.
static FIFO: OnceLock<Fifo> = OnceLock::new();

struct Fifo {
    place: Mutex<Place>,
    /// The fields of every line.
    about: String,
    dropped: AtomicU64,
}

/// Where the lines go.
struct Place {
    file: File,
    /// Whose bundle it is; none when that container is gone, and there is no other yet.
    container: Option<ContainerId>,
}

/// Sends all logs of this process to the fifo in the current directory, which is the bundle of that
/// container. Without one there are no logs.
pub(crate) fn install(runtime: &str, id: &ContainerId, debug: bool) {
    let Ok(file) = open(Path::new("log")) else { return };
    let place = Mutex::new(Place { file, container: Some(id.clone()) });
    let about = format!(" id={} runtime={}", quoted(id.as_str()), quoted(runtime));
    let fifo = FIFO.get_or_init(|| Fifo { place, about, dropped: AtomicU64::new(0) });
    if log::set_logger(fifo).is_ok() {
        log::set_max_level(if debug { LevelFilter::Debug } else { LevelFilter::Info });
    }
    panic::set_hook(Box::new(|told| log::error!("{told}")));
}

/// Whether the logs go into the bundle of that container.
pub(crate) fn are_in(id: &ContainerId) -> bool {
    FIFO.get().is_some_and(|fifo| fifo.place().container.as_ref() == Some(id))
}

/// Leaves a bundle that is about to be removed for the first of others that can be entered.
pub(crate) fn leave<'a>(mut others: impl Iterator<Item = (&'a ContainerId, &'a Bundle)>) {
    let Some(fifo) = FIFO.get() else { return };
    let next = others.find_map(|(id, bundle)| Some((id.clone(), enter(bundle)?)));
    let mut place = fifo.place();
    place.container = None;
    if let Some((id, file)) = next {
        *place = Place { file, container: Some(id) };
    }
}

/// Takes the bundle of a new container, if the logs have been left without one.
pub(crate) fn settle(id: &ContainerId, bundle: &Bundle) {
    let Some(fifo) = FIFO.get() else { return };
    let mut place = fifo.place();
    if place.container.is_none()
        && let Some(file) = enter(bundle)
    {
        *place = Place { file, container: Some(id.clone()) };
    }
}

fn enter(bundle: &Bundle) -> Option<File> {
    let file = open(&bundle.log()).ok()?;
    // The directory that was left goes with its last user.
    chdir(bundle.path()).ok()?;
    Some(file)
}

fn open(fifo: &Path) -> io::Result<File> {
    // Open for reading too: it never lacks a reader then, and survives containerd's restart.
    OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(fifo)
}

impl Fifo {
    fn place(&self) -> MutexGuard<'_, Place> {
        // A panic is logged, too.
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
        if self.place().file.write_all(text.as_bytes()).is_err() {
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
pub fn rfc3339(at: SystemTime) -> String {
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
    use std::{env, fs, io::Read, process::Command, time::Duration};

    use nix::{sys::stat::Mode, unistd::mkfifo};

    use super::*;

    fn bundle(directory: &Path, id: &str) -> (ContainerId, Bundle) {
        let bundle = Bundle::new(directory.join(id)).unwrap();
        fs::create_dir(bundle.path()).unwrap();
        mkfifo(&bundle.log(), Mode::S_IRWXU).unwrap();
        (ContainerId::parse(id).unwrap(), bundle)
    }

    fn lines(fifo: &mut File) -> usize {
        let mut text = [0; 4096];
        let read = fifo.read(&mut text).unwrap_or(0);
        text[..read].iter().filter(|byte| **byte == b'\n').count()
    }

    /// In a process of its own, whose logger and directory it takes.
    #[test]
    fn lines_follow_the_containers_that_live() {
        const INSIDE: &str = "SHIM_TEST_INSIDE";
        if env::var_os(INSIDE).is_some() {
            return follow();
        }
        let name = "log::tests::lines_follow_the_containers_that_live";
        let mut command = Command::new(env::current_exe().unwrap());
        let output = command.args(["--exact", name]).env(INSIDE, "1").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }

    fn follow() {
        let dir = tempfile::tempdir().unwrap();
        let [one, two, three] = ["one", "two", "three"].map(|id| bundle(dir.path(), id));
        let mut fifos = [&one, &two, &three].map(|(_, bundle)| open(&bundle.log()).unwrap());
        let mut told = |text: &str| {
            log::info!("{text}");
            fifos.each_mut().map(lines)
        };
        chdir(one.1.path()).unwrap();
        install("x", &one.0, false);
        // What fails here is for the test's own output.
        drop(panic::take_hook());
        assert!(are_in(&one.0) && !are_in(&two.0));
        settle(&two.0, &two.1);
        assert_eq!(told("the first one lives"), [1, 0, 0]);
        let gone = Bundle::new(dir.path().join("gone")).unwrap();
        leave([(&one.0, &gone), (&two.0, &two.1)].into_iter());
        assert!(are_in(&two.0));
        assert_eq!(told("it has gone"), [0, 1, 0]);
        assert_eq!(fs::read_link("/proc/self/cwd").unwrap(), two.1.path());
        fs::remove_dir_all(one.1.path()).unwrap();
        leave(std::iter::empty());
        assert!(!are_in(&two.0));
        fs::remove_dir_all(two.1.path()).unwrap();
        // Nobody reads them, and nothing waits or fails.
        (0..4096).for_each(|_| log::info!("nobody is left"));
        settle(&three.0, &three.1);
        assert_eq!(told("somebody has come")[2], 1);
        chdir("/").unwrap();
    }

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
