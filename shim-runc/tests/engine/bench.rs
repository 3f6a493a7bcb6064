//! How long it takes.

use std::time::{Duration, Instant};

use shim_core::Container;

use crate::{Bench, bundle::Made};

/// Makes, starts and deletes a container many times; prints the times of each verb.
pub(crate) async fn many(bench: &Bench, rounds: usize) {
    let made = Made::command(&["/bin/true"]);
    let mut times: [Vec<Duration>; 4] = Default::default();
    for _ in 0..rounds {
        let begun = Instant::now();
        let mut running = made.create(bench).await.unwrap();
        let created = Instant::now();
        running.container.start().await.unwrap();
        let started = Instant::now();
        running.wait().await;
        let ended = Instant::now();
        running.container.delete().await.unwrap();
        let deleted = Instant::now();
        times[0].push(created - begun);
        times[1].push(started - created);
        times[2].push(ended - started);
        times[3].push(deleted - ended);
    }
    for (verb, times) in ["create", "start", "exit", "delete"].iter().zip(&mut times) {
        times.sort();
        let (min, med) = (times[0], times[times.len() / 2]);
        let p99 = times[times.len() * 99 / 100];
        println!("       {verb:7} min {min:>9.1?}  med {med:>9.1?}  p99 {p99:>9.1?}");
    }
}
