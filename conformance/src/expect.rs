//! What cases say about answers, with a text that helps who reads the failure.

use std::fmt;

use anyhow::{Result, anyhow, bail};
use shim_client::CallError;
use ttrpc::Code;

/// Why a case could not run; counted apart from passes and failures.
#[derive(Debug)]
pub(crate) struct Skip(pub(crate) String);

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skip {}

/// Ends the case as skipped.
pub(crate) fn skip<T>(why: impl Into<String>) -> Result<T> {
    Err(anyhow!(Skip(why.into())))
}

/// Takes an answer of a method that a shim may leave out: that skips the case.
pub(crate) fn optional<T>(answer: Result<T, CallError>) -> Result<T> {
    match answer {
        Err(error) if error.code() == Some(Code::UNIMPLEMENTED) => {
            skip(format!("the shim does not implement {}", error.call))
        }
        answer => Ok(answer?),
    }
}

/// The call has to be refused with that code.
pub(crate) fn code<T: fmt::Debug>(answer: Result<T, CallError>, expected: Code) -> Result<()> {
    one_of(answer, &[expected])
}

/// The call has to be refused with one of these codes.
pub(crate) fn one_of<T: fmt::Debug>(answer: Result<T, CallError>, expected: &[Code]) -> Result<()> {
    match answer {
        Err(error) if error.code().is_some_and(|code| expected.contains(&code)) => Ok(()),
        Err(error) => bail!("expected {expected:?}, got {error}"),
        Ok(answer) => bail!("expected {expected:?}, but it succeeded: {answer:?}"),
    }
}

/// The call has to be refused, with whatever code: containerd's own shim answers UNKNOWN often.
pub(crate) fn refused<T: fmt::Debug>(answer: Result<T, CallError>) -> Result<()> {
    match answer {
        Err(error) if error.code().is_some() => Ok(()),
        Err(error) => bail!("expected a refusal, got {error}"),
        Ok(answer) => bail!("expected a refusal, but it succeeded: {answer:?}"),
    }
}
