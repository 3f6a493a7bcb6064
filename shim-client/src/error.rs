//! A call that a shim refused, or did not get to answer.

use std::fmt;

use ttrpc::Code;

/// Why a call failed.
///
/// Shown on one line: `create: NOT_FOUND: container not created`.
#[derive(Clone, Debug, PartialEq)]
pub struct CallError {
    /// The method, such as `create`.
    pub call: &'static str,
    /// What went wrong.
    pub reason: Reason,
}

/// What went wrong with a call.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Reason {
    /// The shim answered with an error.
    Refused {
        /// Its kind, containerd's errdefs by number.
        code: Code,
        /// The shim's words.
        message: String,
    },
    /// The connection ended before the answer: the shim is gone.
    Gone,
    /// There was no answer in time, or the connection broke some other way.
    Broken(String),
}

impl CallError {
    pub(crate) fn new(call: &'static str, error: ttrpc::Error) -> Self {
        let reason = match error {
            ttrpc::Error::RpcStatus(status) => {
                Reason::Refused { code: status.code(), message: status.message }
            }
            // The connection's task ends with the connection, and then takes no more requests;
            // ttrpc has no kind of its own for that.
            ttrpc::Error::RemoteClosed | ttrpc::Error::LocalClosed | ttrpc::Error::Eof => {
                Reason::Gone
            }
            ttrpc::Error::Socket(_) => Reason::Gone,
            other => Reason::Broken(other.to_string()),
        };
        Self { call, reason }
    }

    /// The kind of the shim's refusal, if it was one.
    pub fn code(&self) -> Option<Code> {
        match self.reason {
            Reason::Refused { code, .. } => Some(code),
            Reason::Gone | Reason::Broken(_) => None,
        }
    }

    /// Whether the shim knows no such container or process, or it has ended.
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(Code::NOT_FOUND)
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.call)?;
        match &self.reason {
            Reason::Refused { code, message } => write!(f, "{code:?}: {message}"),
            Reason::Gone => f.write_str("the shim closed the connection"),
            Reason::Broken(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for CallError {}
