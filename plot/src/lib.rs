//! Lines, bars and flame graphs as SVG: no more than this repository's measurements need.
//!
//! The colours stand out from white and from black, and there is no background: a page may be
//! light or dark. Both axes start at zero.

#![forbid(unsafe_code)]

mod bars;
mod flame;
mod frame;
mod lines;

pub use self::bars::{Bar, Group, bars};
pub use self::flame::flame;
pub use self::lines::{Line, lines};

/// What stands around a plot, as plain text.
#[derive(Clone, Copy, Debug)]
pub struct Labels<'a> {
    /// Above it.
    pub title: &'a str,
    /// What the axis below counts; empty where its marks say it.
    pub below: &'a str,
    /// The unit of the axis beside it; empty for a number of things.
    pub unit: &'a str,
}
