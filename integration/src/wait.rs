//! Waiting on a condition, with a limit: the only place that lets time pass.

use std::env;
use std::fmt::Display;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// How long something may take that normally takes some milliseconds.
pub const SOON: Duration = Duration::from_secs(10);

/// The variable that makes limits longer, by a whole factor: on a machine without a processor of its
/// own.
pub const PATIENCE: &str = "SHIM_PATIENCE";

/// A limit, as long as this machine needs it.
#[must_use]
pub fn patient(limit: Duration) -> Duration {
    let factor = env::var(PATIENCE).ok().and_then(|factor| factor.parse().ok());
    limit * factor.unwrap_or(1)
}

/// Asks again and again until `probe` succeeds, and returns what it found.
///
/// # Errors
/// The last answer of `probe`, when `limit` is over.
pub fn until<T>(
    what: impl Display,
    limit: Duration,
    mut probe: impl FnMut() -> Result<T>,
) -> Result<T> {
    let (start, limit) = (Instant::now(), patient(limit));
    let mut pause = Duration::from_millis(1);
    loop {
        match probe() {
            Ok(found) => return Ok(found),
            Err(last) if start.elapsed() >= limit => {
                return Err(last).with_context(|| format!("{what}: not within {limit:?}"));
            }
            Err(_) => rest(pause),
        }
        pause = (pause * 2).min(Duration::from_millis(25));
    }
}

/// Sees to it that `probe` holds during all of `span`.
///
/// # Errors
/// The answer of `probe` as soon as it fails.
pub fn throughout(span: Duration, mut probe: impl FnMut() -> Result<()>) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < span {
        probe()?;
        rest(Duration::from_millis(25));
    }
    probe()
}

#[expect(clippy::disallowed_methods, reason = "the pause between two looks at a condition")]
fn rest(pause: Duration) {
    thread::sleep(pause);
}
