//! Runs a command in a guest with systemd and cgroup v2: `cargo xtask guest`.
//!
//! ```text
//! guest [--keep] [--limit SECONDS] [--with PATH]... CMD...
//! ```

#![forbid(unsafe_code)]
#![expect(clippy::print_stderr, reason = "a command line tool")]

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::debs::{Deb, Store};
use integration::engine::Engine;
use integration::guest::disk::Run;
use integration::guest::image::Image;
use integration::guest::machine::{Machine, Stream};
use integration::guest::{agent, built};
use integration::target;

const PROGRAMS: [&str; 3] = ["containerd-shim-native-v2", "shim-runc", "shimctl"];

struct Arguments {
    keep: bool,
    limit: Duration,
    with: Vec<PathBuf>,
    command: Vec<String>,
}

fn main() -> ExitCode {
    if let Some(served) = agent::serve() {
        return served;
    }
    run().unwrap_or_else(|error| {
        eprintln!("guest: {error:#}");
        ExitCode::FAILURE
    })
}

fn run() -> Result<ExitCode> {
    let Arguments { keep, limit, with, command } = arguments()?;
    let store = Store::open();
    let engines = [Engine::V2.deb(), Deb::RUNC, Deb::BUSYBOX];
    store.fetch(&engines)?;
    let image = Image::open(&store)?;
    let mut run = Run::new()?;
    if keep {
        run.keep();
        eprintln!("guest: console and disk stay in {}", run.dir().display());
    }
    let profile = target::profile_dir()?;
    run.put_tests(&built::tests()?)?;
    run.put_programs(&profile, &PROGRAMS)?;
    for program in PROGRAMS {
        run.put(&profile.join(program), &format!("target/debug/{program}"))?;
    }
    run.put_engines(&store, &engines)?;
    for path in with {
        let name = path.file_name().context("--with needs a name")?.to_string_lossy().into_owned();
        run.put(Path::new(&path), &format!("with/{name}"))?;
    }
    let mut guest = Machine::boot(&image, &run.disk()?, run.dir())?;
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let code = guest.run(&command, limit, |stream, bytes| {
        // A closed pipe is no reason to fail.
        let _ = match stream {
            Stream::Out => io::stdout().write_all(bytes).and_then(|()| io::stdout().flush()),
            Stream::Err => io::stderr().write_all(bytes),
        };
    })?;
    Ok(ExitCode::from(code))
}

fn arguments() -> Result<Arguments> {
    let mut found =
        Arguments { keep: false, limit: Duration::from_secs(600), with: vec![], command: vec![] };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--keep" => found.keep = true,
            "--limit" => {
                let seconds = words.next().context("--limit needs seconds")?;
                found.limit = Duration::from_secs(seconds.parse().context("--limit")?);
            }
            "--with" => found.with.push(words.next().context("--with needs a path")?.into()),
            _ => {
                found.command = [word].into_iter().chain(words.by_ref()).collect();
            }
        }
    }
    ensure!(
        !found.command.is_empty(),
        "no command: guest [--keep] [--limit SECONDS] [--with PATH]... CMD..."
    );
    Ok(found)
}
