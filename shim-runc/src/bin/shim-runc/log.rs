//! The log: runc's two formats, which its callers read the last error from.

use std::{
    fs::File,
    io::{self, Write},
    path::Path,
    str::FromStr,
    time::SystemTime,
};

use log::{Level, LevelFilter, Log, Metadata, Record};
use serde::Serialize;
use shim_core::{Context, Error, Result, rfc3339};

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// `time="…" level=error msg="…"`
    Text,
    /// `{"level":"error","msg":"…","time":"…"}`
    Json,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("text or json".to_owned()),
        }
    }
}

struct Logger {
    /// Standard error where there is none.
    file: Option<File>,
    format: Format,
}

/// Sends all logs of this process to a file, or to standard error.
///
/// # Errors
/// When the file can't be opened.
pub(crate) fn install(path: Option<&Path>, format: Format, debug: bool) -> Result<()> {
    let path = path.filter(|path| !path.as_os_str().is_empty());
    let open = |path: &Path| {
        let file = File::options().append(true).create(true).open(path);
        file.with_context(|| format!("open {}", path.display()))
    };
    let file = path.map(open).transpose()?;
    if log::set_boxed_logger(Box::new(Logger { file, format })).is_ok() {
        log::set_max_level(if debug { LevelFilter::Debug } else { LevelFilter::Warn });
    }
    Ok(())
}

/// Tells an error to whoever called: on standard error in any case, and in the log.
pub(crate) fn tell(err: &Error) {
    log::logger().log(
        &Record::builder().level(Level::Error).args(format_args!("{err:#}")).target(TOLD).build(),
    );
    // Nobody is left to be told that this failed.
    let _ = writeln!(io::stderr(), "{err:#}");
}

/// Marks what goes to standard error by itself.
const TOLD: &str = "told";

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let line = line(self.format, record.level(), &record.args().to_string());
        // A log that can't be written changes nothing. One write a line: others append to it as well.
        let _ = match &self.file {
            Some(file) => (&*file).write_all(line.as_bytes()),
            None if record.target() == TOLD => Ok(()),
            None => io::stderr().write_all(line.as_bytes()),
        };
    }

    fn flush(&self) {}
}

fn line(format: Format, level: Level, text: &str) -> String {
    #[derive(Serialize)]
    struct Line<'a> {
        level: &'a str,
        msg: &'a str,
        time: &'a str,
    }
    let level = match level {
        Level::Error => "error",
        Level::Warn => "warning",
        Level::Info => "info",
        Level::Debug | Level::Trace => "debug",
    };
    let time = rfc3339(SystemTime::now());
    match format {
        Format::Text => format!("time={time:?} level={level} msg={text:?}\n"),
        Format::Json => {
            let line = serde_json::to_string(&Line { level, msg: text, time: &time });
            line.unwrap_or_default() + "\n"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_look_as_callers_of_runc_expect() {
        let text = "exec: \"x\": not found";
        let json: serde_json::Value =
            serde_json::from_str(&line(Format::Json, Level::Error, text)).unwrap();
        assert_eq!((&json["level"], &json["msg"]), (&"error".into(), &text.into()));
        assert!(json["time"].as_str().unwrap().ends_with('Z'));
        let line = line(Format::Text, Level::Warn, text);
        assert!(line.ends_with("level=warning msg=\"exec: \\\"x\\\": not found\"\n"), "{line}");
    }
}
