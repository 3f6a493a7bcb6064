//! `start`: how a shim comes to be, and what it says.

mod address;
mod answer;
mod failure;
mod input;
mod process;
mod repeated;

use crate::case::Case;

pub(super) fn cases() -> Vec<Case> {
    [
        answer::cases(),
        address::cases(),
        input::cases(),
        process::cases(),
        failure::cases(),
        repeated::cases(),
    ]
    .concat()
}
