//! What a child of the stem tells the shim, one fixed message each.
//!
//! ```text
//! child                         shim
//!   Settings ------------------->  id mappings, oom score, limits
//!            <------------------- go
//!   Terminal + its master ------>
//!   RunHooks ------------------->  runs the hooks of the host's side
//!            <------------------- go
//!   Listener ------------------->  takes it, gives it to the seccomp agent
//!            <------------------- go
//!   Ready ---------------------->  create is answered
//!            <------------------- go: start
//!   (closed by exec) ----------->  start is answered
//! ```
//! `Failed` can come at any place, and is the last.

use std::os::fd::RawFd;

use super::step::Part;

/// The length of a report.
pub(crate) const LENGTH: usize = 16;

/// One message of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// It needs what only the shim can set from outside.
    Settings,
    /// Here is a terminal's master.
    Terminal,
    /// The hooks of the host's side are due.
    RunHooks,
    /// The filter is loaded; calls that it gives to an agent come by the descriptor of this number.
    Listener(RawFd),
    /// All is done but to execute the program.
    Ready,
    /// A step went wrong.
    Failed(Failure),
}

/// Which step of a plan went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The step's number, from 0.
    pub(crate) step: u32,
    /// The part of it.
    pub(crate) part: Part,
    /// Why: an error's number, or what a hook ended with.
    pub(crate) number: i32,
}

impl Report {
    /// The message's bytes.
    pub(crate) fn bytes(self) -> [u8; LENGTH] {
        let words: [u32; 4] = match self {
            Self::Settings => [1, 0, 0, 0],
            Self::Terminal => [2, 0, 0, 0],
            Self::RunHooks => [3, 0, 0, 0],
            Self::Ready => [4, 0, 0, 0],
            Self::Listener(number) => [6, number.cast_unsigned(), 0, 0],
            Self::Failed(Failure { step, part, number }) => {
                [5, step, part as u32, number.cast_unsigned()]
            }
        };
        let mut bytes = [0; LENGTH];
        for (place, word) in bytes.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }

    /// Reads a message; `None` when it is none of these.
    pub(crate) fn of(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; LENGTH] = bytes.try_into().ok()?;
        let word = |at: usize| {
            let word = bytes[4 * at..4 * at + 4].try_into().expect("four bytes of sixteen");
            u32::from_ne_bytes(word)
        };
        Some(match word(0) {
            1 => Self::Settings,
            2 => Self::Terminal,
            3 => Self::RunHooks,
            4 => Self::Ready,
            5 => {
                let number = word(3).cast_signed();
                Self::Failed(Failure { step: word(1), part: Part::of(word(2)), number })
            }
            6 => Self::Listener(word(1).cast_signed()),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_as_it_was_written() {
        let failure = Failure { step: 17, part: Part::Attach, number: 1 };
        let reports = [
            Report::Settings,
            Report::Terminal,
            Report::RunHooks,
            Report::Ready,
            Report::Listener(9),
            Report::Failed(failure),
        ];
        for report in reports {
            assert_eq!(Report::of(&report.bytes()), Some(report));
        }
        assert_eq!(Report::of(&[0; LENGTH]), None);
        assert_eq!(Report::of(b"short"), None);
    }
}
