//! The one line between host and guest, and the streams on it.
//!
//! The line is a serial port: it has no connection, so both ends begin with a greeting that holds the word
//! of this boot (`greet`); what comes before it is of nobody. From there on yamux divides it. Streams are
//! opened by the host alone, and begin with a line that says what they are for ([`Purpose`]); the guest
//! answers with one line, too, and then the stream is what it was opened for.

mod greet;
mod mux;
mod purpose;

pub use greet::{Word, greet_guest, greet_host};
pub use mux::{Incoming, Opener, Stream, guest, host};
pub use purpose::{Purpose, accept, open};
