//! Signals, real-time ones and the null signal among them.

use crate::error::{Error, Result};

/// A signal's number, 0 to 64. 0 only asks whether the process is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal(u8);

impl Signal {
    /// Ends a process, whatever it does.
    pub const KILL: Self = Self(9);
    /// Asks a process to end.
    pub const TERM: Self = Self(15);

    /// Parses the number on the wire.
    ///
    /// # Errors
    /// `InvalidArgument` for what Linux does not know.
    pub fn parse(number: u32) -> Result<Self> {
        match u8::try_from(number) {
            Ok(small @ 0..=64) => Ok(Self(small)),
            _ => Err(Error::invalid(format!("signal {number} is not one of 0 to 64"))),
        }
    }

    /// The number, as kill(2) takes it.
    pub fn number(self) -> u8 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_0_to_64() {
        assert_eq!(Signal::parse(0).unwrap().number(), 0);
        assert_eq!(Signal::parse(64).unwrap().number(), 64);
        assert!(Signal::parse(65).is_err());
        assert!(Signal::parse(u32::MAX).is_err());
    }
}
