//! The cases, one file a group.

mod bootstrap;
mod model;

use crate::case::Case;

/// Every case, in the order in which they run.
pub(crate) fn all() -> Vec<Case> {
    [bootstrap::cases(), model::cases()].concat()
}
