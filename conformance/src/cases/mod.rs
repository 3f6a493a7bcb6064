//! The cases, one file a group.

mod bootstrap;
mod checkpoint;
mod cleanup;
mod concurrency;
mod events;
mod exec;
mod group;
mod info;
mod input;
mod kill;
mod model;
mod oom;
mod pause;
mod recovery;
mod rootfs;
mod sandbox;
mod shutdown;
mod stats;
mod stdio;
mod streaming;
mod task;
mod terminal;
mod update;
mod wait;
mod wire;

use crate::case::Case;

/// Every case, in the order in which they run.
pub(crate) fn all() -> Vec<Case> {
    [
        bootstrap::cases(),
        info::cases(),
        task::cases(),
        exec::cases(),
        kill::cases(),
        wait::cases(),
        events::cases(),
        stdio::cases(),
        streaming::cases(),
        terminal::cases(),
        rootfs::cases(),
        stats::cases(),
        update::cases(),
        pause::cases(),
        oom::cases(),
        checkpoint::cases(),
        group::cases(),
        sandbox::cases(),
        shutdown::cases(),
        recovery::cases(),
        cleanup::cases(),
        input::cases(),
        wire::cases(),
        concurrency::cases(),
        model::cases(),
    ]
    .concat()
}
