//! Signals: their names, and those that are passed on.

use std::{
    future::poll_fn,
    io,
    task::{Context as Task, Poll},
};

use nix::sys::signal::Signal as Known;
use shim_core::{Error, Result, model::Signal};
use tokio::signal::unix::{self, SignalKind, signal};

/// The first real-time signal that programs may use, as the C library has it.
const REAL_TIME: u32 = 34;

/// Parses a signal as runc takes it: `9`, `KILL`, `sigkill`, `RTMIN+3`.
///
/// # Errors
/// `InvalidArgument` for any other text.
pub(crate) fn parse(text: &str) -> Result<Signal> {
    if let Ok(number) = text.parse() {
        return Signal::parse(number);
    }
    let unknown = || Error::invalid(format!("unknown signal {text:?}"));
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = [("RTMIN+", REAL_TIME), ("RTMIN", REAL_TIME), ("RTMAX", 64)];
    for (prefix, first) in real_time {
        let Some(rest) = name.strip_prefix(prefix) else { continue };
        let offset: i64 = if rest.is_empty() { 0 } else { rest.parse().map_err(|_| unknown())? };
        let number = u32::try_from(i64::from(first) + offset).map_err(|_| unknown())?;
        return if (REAL_TIME..=64).contains(&number) {
            Signal::parse(number)
        } else {
            Err(unknown())
        };
    }
    let known: Known = format!("SIG{name}").parse().map_err(|_| unknown())?;
    Signal::parse((known as i32).cast_unsigned())
}

/// The signals that we get, in the place of the process that we stay with.
pub(crate) struct Caught(Vec<(Known, unix::Signal)>);

/// Those that somebody may send us and mean the process; a change of the terminal's size too.
const CAUGHT: [Known; 9] = [
    Known::SIGHUP,
    Known::SIGINT,
    Known::SIGQUIT,
    Known::SIGUSR1,
    Known::SIGUSR2,
    Known::SIGTERM,
    Known::SIGCONT,
    Known::SIGALRM,
    Known::SIGWINCH,
];

impl Caught {
    /// Begins to catch them; they end us no more.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn begin() -> io::Result<Self> {
        let catch = |known: Known| Ok((known, signal(SignalKind::from_raw(known as i32))?));
        CAUGHT.into_iter().map(catch).collect::<io::Result<_>>().map(Self)
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) -> Known {
        poll_fn(|task| self.poll(task)).await
    }

    fn poll(&mut self, task: &mut Task<'_>) -> Poll<Known> {
        let came = self.0.iter_mut().find_map(|(known, signal)| {
            matches!(signal.poll_recv(task), Poll::Ready(Some(()))).then_some(*known)
        });
        came.map_or(Poll::Pending, Poll::Ready)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_numbers_and_names() {
        let cases = [
            ("9", 9),
            ("KILL", 9),
            ("SIGKILL", 9),
            ("sigterm", 15),
            ("0", 0),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX", 64),
            ("SIGRTMAX-1", 63),
        ];
        for (text, number) in cases {
            assert_eq!(parse(text).unwrap().number(), number, "{text}");
        }
        for bad in ["", "65", "-1", "FOO", "SIG", "RTMIN+31", "RTMAX+1", "RTMINx"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
