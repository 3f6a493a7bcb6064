//! What a shim publishes: which events, in which order, and what they say.

mod order;
mod outage;
mod payload;
mod stub;

use crate::case::Case;

pub(super) fn cases() -> Vec<Case> {
    [order::cases(), payload::cases(), outage::cases()].concat()
}
