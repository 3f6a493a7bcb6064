//! The tests, one file a concern.

mod allocations;
mod exec;
mod failures;
mod hooks;
mod limits;
mod mounts;
mod net;
mod notify;
mod privileges;
mod security;
mod terminal;
mod users;
mod view;

use crate::Case;

/// Collects the tests of a file in its `ALL`.
macro_rules! cases {
    ($($(#[$doc:meta])* async fn $name:ident($bench:ident: &Bench) $body:block)*) => {
        $($(#[$doc])* async fn $name($bench: &Bench) $body)*

        /// Every test of this file by its name.
        pub(crate) const ALL: &[(&str, crate::Case)] = &[
            $((stringify!($name), |bench| Box::pin($name(bench))),)*
        ];
    };
}
use cases;
use failures::another;

/// Every test.
pub(crate) fn all() -> impl Iterator<Item = &'static (&'static str, Case)> {
    let files = [
        view::ALL,
        mounts::ALL,
        privileges::ALL,
        net::ALL,
        notify::ALL,
        limits::ALL,
        exec::ALL,
        terminal::ALL,
        users::ALL,
        failures::ALL,
        hooks::ALL,
        allocations::ALL,
    ];
    files.into_iter().flatten().chain(security::all())
}
