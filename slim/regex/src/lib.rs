//! The part of regex's interface that our dependencies use, over regex-lite.
//!
//! oci-spec and the generators of messages make a pattern and ask whether a text matches it: both
//! crates answer that alike for patterns without Unicode classes, as theirs are.

pub use regex_lite::{Error, Regex};
