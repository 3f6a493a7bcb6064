//! Requests that containerd would not send, and large ones that it would.

mod ids;
mod large;
mod malformed;

use crate::case::Case;

pub(super) fn cases() -> Vec<Case> {
    [malformed::cases(), ids::cases(), large::cases()].concat()
}
