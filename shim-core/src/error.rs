//! One error type: a [`Kind`] for the caller to act on, a chain of context for people to read.
//!
//! A kind is chosen by hand at the place that knows. An I/O error is always [`Kind::Other`]: that a
//! pid file is missing must never tell containerd that there is no such container.

use std::{borrow::Cow, error::Error as StdError, fmt, io};

/// The result of everything here that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, one pointer wide.
///
/// `{}` prints the outermost message, `{:#}` the whole chain on one line, as `ctr` shows it.
pub struct Error(Box<Inner>);

struct Inner {
    kind: Kind,
    message: Cow<'static, str>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// What the caller can do about an error. Each kind is one ttrpc code and one containerd errdef.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// An id that is taken.
    AlreadyExists,
    /// An operation that came at the wrong time.
    FailedPrecondition,
    /// A request that does not parse or makes no sense.
    InvalidArgument,
    /// An unknown or deleted container or exec, a process that has ended.
    NotFound,
    /// Everything else.
    Other,
    /// The host forbids it.
    PermissionDenied,
    /// Out of pids, memory, file descriptors or disk.
    ResourceExhausted,
    /// A time limit of our own has passed.
    TimedOut,
    /// Something the shim needs cannot be reached.
    Unavailable,
    /// The backend does not offer it.
    Unsupported,
}

impl Error {
    /// Makes an error of a chosen kind.
    pub fn new(kind: Kind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner { kind, message: message.into(), source: None }))
    }

    /// Makes an error of kind [`Kind::Other`].
    pub fn other(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Other, message)
    }

    /// Makes an error of kind [`Kind::InvalidArgument`].
    pub fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::InvalidArgument, message)
    }

    /// Makes an error of kind [`Kind::NotFound`].
    pub fn not_found(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::NotFound, message)
    }

    /// Says that a backend leaves a verb out.
    pub fn unsupported(verb: &'static str) -> Self {
        Self::new(Kind::Unsupported, format!("{verb} is not supported by this backend"))
    }

    /// What the caller can do about it.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Puts what we were doing in front; the kind stays.
    #[must_use]
    pub fn context(self, message: impl Into<Cow<'static, str>>) -> Self {
        let kind = self.kind();
        Self(Box::new(Inner { kind, message: message.into(), source: Some(Box::new(self)) }))
    }

    /// Changes the kind, at the place that knows better.
    #[must_use]
    pub fn with_kind(mut self, kind: Kind) -> Self {
        self.0.kind = kind;
        self
    }
}

/// Adds to a failure what was being done: lower case, no "failed to", no full stop.
pub trait Context<T> {
    /// Adds a fixed message.
    fn context(self, message: &'static str) -> Result<T>;

    /// Adds a message that costs something to build.
    fn with_context<M: Into<Cow<'static, str>>>(self, message: impl FnOnce() -> M) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for Result<T, E> {
    fn context(self, message: &'static str) -> Result<T> {
        self.map_err(|err| err.into().context(message))
    }

    fn with_context<M: Into<Cow<'static, str>>>(self, message: impl FnOnce() -> M) -> Result<T> {
        self.map_err(|err| err.into().context(message()))
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|err| err as _)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self:#}", self.0.kind)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        if !f.alternate() {
            return Ok(());
        }
        let mut cause = self.source();
        while let Some(err) = cause {
            write!(f, ": {err}")?;
            cause = err.source();
        }
        Ok(())
    }
}

impl From<io::Error> for Error {
    fn from(err: io::Error) -> Self {
        Self::other(err.to_string())
    }
}

impl From<nix::Error> for Error {
    fn from(err: nix::Error) -> Self {
        // The symbol first: "EPERM: Operation not permitted" is what people search for.
        Self::other(err.to_string())
    }
}

impl From<serde_json::Error> for Error {
    fn from(err: serde_json::Error) -> Self {
        Self::other(err.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn context_keeps_the_kind_and_prints_outermost_first() {
        let err = Error::not_found("no such exec").context("kill");
        assert_eq!(err.kind(), Kind::NotFound);
        assert_eq!(err.to_string(), "kill");
        assert_eq!(format!("{err:#}"), "kill: no such exec");
    }

    #[test]
    fn a_missing_file_is_not_a_missing_container() {
        let err = Error::from(io::Error::from(io::ErrorKind::NotFound));
        assert_eq!(err.kind(), Kind::Other);
    }
}
