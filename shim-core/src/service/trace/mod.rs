//! Traces, with the feature `otel`: a span for every call, under the span of the caller.
//!
//! containerd sends W3C trace context in a request's metadata, and hands its own environment to the
//! shim, so that spans go where containerd's go. The feature off, nothing of this is compiled.
//!
//! An exporter has a thread: the process may have no second one before the backend is open, and a
//! backend that forks later has to look. Nothing here may hold up an answer: spans that don't fit
//! into their queue are lost.

#[cfg(feature = "otel")]
mod export;
#[cfg(not(feature = "otel"))]
mod off;
#[cfg(feature = "otel")]
mod post;
#[cfg(feature = "otel")]
mod span;

#[cfg(feature = "otel")]
pub(crate) use export::traced;
#[cfg(not(feature = "otel"))]
pub(crate) use off::traced;

#[cfg(test)]
#[cfg(feature = "otel")]
mod tests;
