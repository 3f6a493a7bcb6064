//! The root filesystem: mounts that come with Create, and go with Delete.

mod left;
mod plain;

use crate::case::Case;

pub(super) fn cases() -> Vec<Case> {
    [plain::cases(), left::cases()].concat()
}
