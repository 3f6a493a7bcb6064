//! The task service's calls for a container's first process, in each state that it can be in.

mod created;
mod creation;
mod ended;
mod life;
mod running;
mod unknown;

use crate::case::Case;

pub(super) fn cases() -> Vec<Case> {
    [
        life::cases(),
        unknown::cases(),
        creation::cases(),
        created::cases(),
        running::cases(),
        ended::cases(),
    ]
    .concat()
}
