//! Shims under real containerds: every test runs with each of them.
#![forbid(unsafe_code)]

mod api;
mod checkpoint;
mod confinement;
mod crowd;
mod death;
mod escape;
mod exec;
mod external;
mod leaks;
mod limits;
mod logging;
mod many;
mod metrics;
mod namespaces;
mod oci;
mod oom;
mod pods;
mod restart;
mod rootfs;
mod run;
mod strangers;
mod streams;
mod task;
mod terminal;
mod view;

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(knocked) = strangers::knock() {
        return knocked;
    }
    integration::runner::main(&[
        leaks::TESTS,
        run::TESTS,
        task::TESTS,
        exec::TESTS,
        terminal::TESTS,
        api::TESTS,
        rootfs::TESTS,
        streams::TESTS,
        logging::TESTS,
        oom::TESTS,
        pods::TESTS,
        many::TESTS,
        limits::TESTS,
        metrics::TESTS,
        view::TESTS,
        confinement::TESTS,
        strangers::TESTS,
        escape::TESTS,
        oci::TESTS,
        namespaces::TESTS,
        restart::TESTS,
        external::TESTS,
        external::runc::TESTS,
        external::crun::TESTS,
        external::runsc::TESTS,
        checkpoint::TESTS,
        crowd::TESTS,
        death::TESTS,
    ])
}
