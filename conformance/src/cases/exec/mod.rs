//! Exec: processes that are added to a running container.

mod life;
mod many;
mod process;
mod refusals;

use crate::case::Case;

pub(super) fn cases() -> Vec<Case> {
    [life::cases(), refusals::cases(), process::cases(), many::cases()].concat()
}
