//! How often the engine asks for memory: a budget, the same on every machine.
//!
//! What is measured is the second container of a shim, so that nothing of it is made only once.

use std::fs::File;

use shim_core::{
    Backend, Container, Create, Created, Exec, Init, Process, Streams, Target,
    model::{ExecId, Signal},
};
use stats_alloc::Region;

use super::cases;
use crate::{Bench, GLOBAL, bundle::Made};

cases! {
    async fn a_life_asks_for_memory_seldom(bench: &Bench) {
        let mut counts = live(bench).await;
        for _ in 0..2 {
            // The runtime makes room now and then: the least is what the work itself takes.
            let again = live(bench).await;
            counts.iter_mut().zip(again).for_each(|(least, (_, count))| least.1 = count.min(least.1));
        }
        println!("       allocations: {counts:?}");
        for ((verb, count), limit) in counts.iter().zip([CREATE, START, EXEC, KILL, DELETE]) {
            assert!(*count <= limit, "{verb} allocates {count} times, of at most {limit}");
        }
    }
}

/// The limits, a fifth above what was found.
const CREATE: usize = 740;
const START: usize = 3;
const EXEC: usize = 130;
const KILL: usize = 3;
const DELETE: usize = 45;

/// One life, and how often each of its steps allocates.
async fn live(bench: &Bench) -> [(&'static str, usize); 5] {
    let made = Made::command(&["/bin/sleep", "1000"]);
    made.write();
    let request = Create {
        id: made.id.clone(),
        bundle: made.bundle(),
        rootfs: Vec::new(),
        streams: null_streams(),
        options: None,
        checkpoint: None,
        host: bench.host.clone(),
    };
    let process = serde_json::from_value(made.spec["process"].clone()).unwrap();
    let exec = Exec { id: ExecId::parse("e").unwrap(), process, streams: null_streams() };

    let region = Region::new(GLOBAL);
    let created: Created<Box<dyn Container>> = bench.backend.create(request).await.unwrap();
    let create = region.change().allocations;
    let (container, Init::Made(init)) = (created.container, created.init) else {
        panic!("it is to have a process")
    };
    let region = Region::new(GLOBAL);
    container.start().await.unwrap();
    let start = region.change().allocations;
    let region = Region::new(GLOBAL);
    let Process { pid, exit, .. } = container.exec(exec).await.unwrap();
    let run = region.change().allocations;
    let id = ExecId::parse("e").unwrap();
    container.kill(Target::Exec { id: &id, pid }, Signal::KILL).await.unwrap();
    exit.await;
    let region = Region::new(GLOBAL);
    container.kill(Target::Init, Signal::KILL).await.unwrap();
    let kill = region.change().allocations;
    init.exit.await;
    let region = Region::new(GLOBAL);
    container.delete().await.unwrap();
    let delete = region.change().allocations;
    [("create", create), ("start", start), ("exec", run), ("kill", kill), ("delete", delete)]
}

fn null_streams() -> Streams {
    let null = || File::options().read(true).write(true).open("/dev/null").unwrap().into();
    Streams::Pipes { stdin: null(), stdout: null(), stderr: null() }
}
