//! The cases, one file a group.

mod bootstrap;

use crate::case::Case;

/// Every case, in the order in which they run.
pub(crate) fn all() -> Vec<Case> {
    [bootstrap::cases()].concat()
}
