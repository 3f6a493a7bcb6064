//! The engine on a real kernel, as root: containers from a busybox, made and looked at.
//!
//! It has its own `main`: the engine executes this program once more as its stem, and cargo's runner
//! has threads, which no process that forks may have. Each test ends with a look for what it left on the host.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test, with its own runner")]

#[expect(unsafe_code, reason = "answers system calls for another process")]
mod agent;
mod bench;
mod bundle;
mod cases;
#[path = "../common/mod.rs"]
mod common;
mod host;

use std::{
    alloc::System,
    future::Future,
    panic::AssertUnwindSafe,
    process::ExitCode,
    time::{Duration, Instant},
};

use shim_core::{Backend, Host, linux::Reaper, model::Namespace};
use shim_runc::NativeBackend;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

/// Counts what is asked of it.
#[global_allocator]
pub(crate) static GLOBAL: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// What a test works with.
pub(crate) struct Bench {
    pub(crate) backend: NativeBackend,
    pub(crate) host: Host,
}

fn main() -> ExitCode {
    let mut backend = NativeBackend::new();
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: the engine needs root");
        return ExitCode::SUCCESS;
    }
    let host = Host {
        reaper: Reaper::default(),
        namespace: Namespace::parse(&host::namespace()).expect("a namespace"),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let entered = runtime.enter();
    backend.open(host.clone()).expect("open the backend");
    drop(entered);
    // The stem comes with the first turn of the runtime, and belongs to no test.
    runtime.block_on(tokio::task::yield_now());
    let bench = Bench { backend, host };
    let filters: Vec<_> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let (mut passed, mut failed) = (0, Vec::new());
    for (name, case) in cases::all() {
        if !filters.is_empty() && !filters.iter().any(|filter| name.contains(filter.as_str())) {
            continue;
        }
        let begun = Instant::now();
        let before = host::Traces::now();
        let ended = std::panic::catch_unwind(AssertUnwindSafe(|| {
            runtime.block_on(async {
                let limit = Duration::from_secs(180);
                tokio::time::timeout(limit, case(&bench)).await.expect("within the time limit");
            });
            before.assert_no_more();
        }));
        let took = begun.elapsed();
        match ended {
            Ok(()) => {
                passed += 1;
                println!("test {name} ... ok ({took:.1?})");
            }
            Err(_) => {
                host::kill_all();
                failed.push(*name);
                println!("test {name} ... FAILED ({took:.1?})");
            }
        }
    }
    host::remove_parents();
    println!("{passed} passed, {} failed {failed:?}", failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A test.
pub(crate) type Case = for<'a> fn(&'a Bench) -> std::pin::Pin<Box<dyn Future<Output = ()> + 'a>>;
