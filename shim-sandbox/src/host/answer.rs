//! What a guest says, checked: it may be anybody's by now.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use shim_core::{
    Error, Kind,
    model::{Exit, ExitStatus},
};
use shim_protos::Timestamp;
use ttrpc::Code;

/// The longest text that is taken from a guest.
const TEXT_LIMIT: usize = 4 << 10;

/// The longest that a letter becomes, `\\u{10ffff}`, or the mark of what is cut.
const LETTER_LIMIT: usize = 10;

/// An error of a call as one of ours.
pub(super) fn error(err: ttrpc::Error) -> Error {
    match err {
        ttrpc::Error::RpcStatus(status) => Error::new(kind(status.code()), text(status.message())),
        other => Error::new(
            Kind::Unavailable,
            format!("the guest does not answer: {}", text(&other.to_string())),
        ),
    }
}

/// The kind that the guest's half has given its error.
fn kind(code: Code) -> Kind {
    match code {
        Code::ALREADY_EXISTS => Kind::AlreadyExists,
        Code::DEADLINE_EXCEEDED => Kind::TimedOut,
        Code::FAILED_PRECONDITION => Kind::FailedPrecondition,
        Code::INVALID_ARGUMENT => Kind::InvalidArgument,
        Code::NOT_FOUND => Kind::NotFound,
        Code::PERMISSION_DENIED => Kind::PermissionDenied,
        Code::RESOURCE_EXHAUSTED => Kind::ResourceExhausted,
        Code::UNAVAILABLE => Kind::Unavailable,
        Code::UNIMPLEMENTED => Kind::Unsupported,
        _ => Kind::Other,
    }
}

/// Text that may go into a log and to a terminal: bounded, and without what either acts on.
pub(super) fn text(said: &str) -> String {
    let mut text = String::new();
    for letter in said.chars() {
        if text.len() + LETTER_LIMIT > TEXT_LIMIT {
            text.push('…');
            break;
        }
        if letter.is_control() || is_reordering(letter) {
            text.extend(letter.escape_default());
        } else {
            text.push(letter);
        }
    }
    text
}

/// Letters that change the order of others on a screen.
fn is_reordering(letter: char) -> bool {
    matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The end of a process, that can't have been before the process was or be still to come.
pub(super) fn exit(status: u32, at: Option<&Timestamp>, began: SystemTime) -> Exit {
    let status = u8::try_from(status).map_or(ExitStatus::Unknown, ExitStatus::Code);
    let now = SystemTime::now();
    // Clocks of guests drift: a process that ends at once may seem to have ended before.
    let at = at.and_then(time).unwrap_or(now).clamp(began.min(now), now);
    Exit { status, at }
}

fn time(at: &Timestamp) -> Option<SystemTime> {
    let seconds = Duration::from_secs(u64::try_from(at.seconds).ok()?);
    let nanos = u32::try_from(at.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    UNIX_EPOCH.checked_add(seconds)?.checked_add(Duration::from_nanos(nanos.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_bounded_and_acts_on_nothing() {
        assert_eq!(text("no\nway \x1b[31m\u{202e}x é"), "no\\nway \\u{1b}[31m\\u{202e}x é");
        let long = text(&"é".repeat(1 << 20));
        assert!(long.len() <= TEXT_LIMIT, "{}", long.len());
        assert!(text(&"\0".repeat(1 << 20)).len() <= TEXT_LIMIT);
    }

    #[test]
    fn errors_keep_their_kinds() {
        let said = |code| error(ttrpc::Error::RpcStatus(ttrpc::get_status(code, "x\n"))).kind();
        assert_eq!(said(Code::NOT_FOUND), Kind::NotFound);
        assert_eq!(said(Code::UNIMPLEMENTED), Kind::Unsupported);
        assert_eq!(said(Code::INTERNAL), Kind::Other);
        assert_eq!(error(ttrpc::Error::RemoteClosed).kind(), Kind::Unavailable);
    }

    #[test]
    fn exits_are_codes_in_the_time_of_the_process() {
        let began = SystemTime::now() - Duration::from_secs(10);
        let at = |seconds, nanos| Timestamp { seconds, nanos, ..Default::default() };
        assert_eq!(exit(137, None, began).status, ExitStatus::Code(137));
        assert_eq!(exit(256, None, began).status, ExitStatus::Unknown);
        for bad in [at(i64::MAX, 0), at(-5, 0), at(1, -1), at(i64::MIN, i32::MAX), at(0, 0)] {
            let exit = exit(0, Some(&bad), began);
            assert!(exit.at >= began && exit.at <= SystemTime::now(), "{bad:?}");
        }
    }
}
