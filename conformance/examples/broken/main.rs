//! `containerd-shim-broken-v1`: a shim that is wrong in one way, of the suite's choosing.
//!
//! It stands in front of a sound shim and passes everything on, but for its fault: so a suite that
//! does not notice has a hole. Which shim, and which fault, stands in `broken.conf` beside it, a
//! line each; the faults are in `faults.rs`.
//!
//! ```text
//! containerd ── task service ──▶ this ──▶ the sound shim
//!            ◀── events ─────── this ◀──
//! ```

#![forbid(unsafe_code)]
#![expect(clippy::print_stderr, reason = "the reason of a failed start goes there")]

mod faults;
mod frames;
mod serve;
mod start;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

use anyhow::{Context, Result};

use self::faults::Fault;

/// What it stands in front of, and how it is wrong.
struct Setting {
    folder: PathBuf,
    shim: PathBuf,
    fault: Fault,
}

impl Setting {
    fn read() -> Result<Self> {
        let own = env::current_exe().context("find our own executable")?;
        let folder = own.parent().context("a folder")?.to_owned();
        let text = fs::read_to_string(folder.join("broken.conf")).context("read broken.conf")?;
        let (shim, fault) = text.trim().split_once('\n').context("broken.conf has two lines")?;
        Ok(Self { folder, shim: PathBuf::from(shim), fault: fault.parse()? })
    }

    /// A socket of ours, for something of that name.
    fn socket(&self, kind: &str, of: &Path) -> PathBuf {
        let name = of.file_name().unwrap_or_default().to_string_lossy();
        let tail = name.get(name.len().saturating_sub(16)..).unwrap_or_default();
        self.folder.join(format!("{kind}-{tail}"))
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let acted = Setting::read().and_then(|setting| match arguments.last().map(String::as_str) {
        Some("start") => start::start(&setting, &arguments),
        Some("delete") => start::delete(&setting, &arguments),
        _ if arguments.first().is_some_and(|first| first == "serve") => {
            serve::serve(setting, &arguments)
        }
        _ => start::pass_on(&setting, &arguments),
    });
    acted.unwrap_or_else(|error| {
        eprintln!("broken: {error:#}");
        ExitCode::FAILURE
    })
}
