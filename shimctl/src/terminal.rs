//! The terminal that shimctl itself runs in.

use std::io::IsTerminal;
use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

/// A terminal in raw mode; dropping it restores the mode that it had.
///
/// In raw mode every key goes to the container as it is, ^C too: the terminal inside gives it its
/// meaning.
#[derive(Debug)]
pub(crate) struct RawMode {
    terminal: OwnedFd,
    before: Termios,
}

impl RawMode {
    /// Makes that terminal raw; does nothing for what is no terminal.
    pub(crate) fn enter(terminal: OwnedFd) -> Result<Option<Self>> {
        if !terminal.is_terminal() {
            return Ok(None);
        }
        let before = tcgetattr(&terminal).context("read the terminal's mode")?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(&terminal, SetArg::TCSANOW, &raw).context("set the terminal to raw mode")?;
        Ok(Some(Self { terminal, before }))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // A terminal that is gone needs no mode.
        let _ = tcsetattr(&self.terminal, SetArg::TCSANOW, &self.before);
    }
}

/// Width and height of the terminal that we are connected to by any standard stream.
pub(crate) fn window_size() -> Option<(u32, u32)> {
    let sizes = [
        rustix::termios::tcgetwinsize(std::io::stdin()),
        rustix::termios::tcgetwinsize(std::io::stdout()),
        rustix::termios::tcgetwinsize(std::io::stderr()),
    ];
    let size = sizes.into_iter().flatten().next()?;
    // A terminal that does not know its size says zero.
    (size.ws_col > 0).then(|| (size.ws_col.into(), size.ws_row.into()))
}
