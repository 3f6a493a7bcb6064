//! The bytes of processes, in both directions.

use std::{os::fd::AsFd, time::Instant};

use serde_json::json;
use shim_core::{Container, Streams, model::WindowSize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::unix::pipe,
};

use crate::world::{exec_with, null, run, terminal};

/// As many bytes as fit in memory twice, and in no window.
const MANY: usize = 100 << 20;

#[test]
fn a_hundred_mebibytes_come_back_as_they_went() {
    run(async |world| {
        let mut running = world.start("cat").await;
        let mut stdin = running.stdin.take().unwrap();
        let writing = tokio::spawn(async move {
            let mut random = Random(1);
            let mut sent = Sum::default();
            for _ in 0..MANY / random.block().len() {
                let block = random.block();
                sent.add(&block);
                stdin.write_all(&block).await.unwrap();
            }
            sent
        });
        let mut got = Sum::default();
        let mut buffer = vec![0; 64 << 10];
        let mut stdout = running.stdout.take().unwrap();
        loop {
            match stdout.read(&mut buffer).await.unwrap() {
                0 => break,
                read => got.add(&buffer[..read]),
            }
        }
        assert_eq!(got, writing.await.unwrap());
        assert_eq!(running.exit().await.status.wire(), 0);
        running.container.delete().await.unwrap();
    });
}

#[test]
fn a_stdin_ends_with_what_is_in_it_read() {
    run(async |world| {
        for text in ["", "some words\n"] {
            let mut running = world.start("wc -c; cat").await;
            running.say(text).await;
            drop(running.stdin.take());
            assert_eq!(running.output().await.trim(), text.len().to_string());
            assert_eq!(running.exit().await.status.wire(), 0);
            running.container.delete().await.unwrap();
        }
    });
}

#[test]
fn a_stdin_that_nobody_reads_holds_nothing_up() {
    run(async |world| {
        let mut running = world.start("echo ready; read line; exit 4").await;
        running.line().await;
        let mut stdin = running.stdin.take().unwrap();
        let writing = tokio::spawn(async move {
            // More than all buffers on the way; the process reads none of it.
            loop {
                if stdin.write_all(&[b'\n'; 4096]).await.is_err() {
                    break;
                }
            }
        });
        assert_eq!(running.exit().await.status.wire(), 4);
        writing.await.unwrap();
        running.container.delete().await.unwrap();
    });
}

#[test]
fn an_output_that_nobody_takes_holds_only_its_process_up() {
    run(async |world| {
        let mut running = world.start("echo ready; head -c 10000000 /dev/zero; sleep 1000").await;
        running.line().await;
        let (ours, stdout) = crate::world::pipe();
        let streams = Streams::Pipes { stdin: null(), stdout, stderr: null() };
        let other = exec_with(&running.container, "e1", &["echo", "fine"], streams).await.unwrap();
        let mut text = String::new();
        let mut ours = pipe::Receiver::from_owned_fd(ours).unwrap();
        ours.read_to_string(&mut text).await.unwrap();
        assert_eq!((text.as_str(), other.exit.await.status.wire()), ("fine\n", 0));
        // What is not taken is kept by nobody for long.
        running.remove().await;
    });
}

#[test]
fn two_outputs_stay_two() {
    run(async |world| {
        let mut running = world.start("echo ready; sleep 1000").await;
        running.line().await;
        let (out, stdout) = crate::world::pipe();
        let (err, stderr) = crate::world::pipe();
        let streams = Streams::Pipes { stdin: null(), stdout, stderr };
        let args = ["/bin/sh", "-c", "echo out; echo err >&2"];
        let process = exec_with(&running.container, "e1", &args, streams).await.unwrap();
        for (end, expected) in [(out, "out\n"), (err, "err\n")] {
            let mut text = String::new();
            let mut end = pipe::Receiver::from_owned_fd(end).unwrap();
            end.read_to_string(&mut text).await.unwrap();
            assert_eq!(text, expected);
        }
        process.exit.await;
        running.remove().await;
    });
}

#[test]
fn an_output_may_be_a_file() {
    run(async |world| {
        let mut running = world.start("echo ready; sleep 1000").await;
        running.line().await;
        let file = tempfile::tempfile().unwrap();
        let stdout = file.as_fd().try_clone_to_owned().unwrap();
        let streams = Streams::Pipes { stdin: null(), stdout, stderr: null() };
        let process = exec_with(&running.container, "e1", &["echo", "x"], streams).await.unwrap();
        process.exit.await;
        let mut text = [0; 2];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut text, 0).unwrap();
        assert_eq!(&text, b"x\n");
        running.remove().await;
    });
}

#[test]
fn a_terminal_has_the_size_it_is_given_and_ends_with_its_process() {
    run(async |world| {
        let (id, mut spec) = world.script("read line; stty size; echo \"got $line\"; exit 6");
        spec["process"]["terminal"] = json!(true);
        let mut running = world.create_with((id, spec), Streams::Terminal).await.unwrap();
        let (mut terminal_end, resize) = terminal(&mut running.init);
        running.container.start().await.unwrap();
        resize(WindowSize { height: 33, width: 77 }).unwrap();
        // A call that is answered after the resize was taken.
        running.container.pause().await.unwrap();
        running.container.resume().await.unwrap();
        terminal_end.write_all(b"words\n").await.unwrap();
        let mut text = String::new();
        terminal_end.read_to_string(&mut text).await.unwrap();
        assert!(text.ends_with("33 77\r\ngot words\r\n"), "{text:?}");
        assert_eq!(running.exit().await.status.wire(), 6);

        running.container.delete().await.unwrap();
        let mut running = world.start("echo ready; sleep 1000").await;
        running.line().await;
        let streams = Streams::Terminal;
        let args = ["/bin/sh", "-c", "tty; exit 2"];
        let mut process = exec_with(&running.container, "e1", &args, streams).await.unwrap();
        let (mut end, _) = terminal(&mut process);
        let mut text = String::new();
        end.read_to_string(&mut text).await.unwrap();
        assert!(text.starts_with("/dev/pts/"), "{text:?}");
        assert_eq!(process.exit.await.status.wire(), 2);
        running.remove().await;
    });
}

#[test]
fn a_gibibyte_is_measured_where_that_is_asked_for() {
    if std::env::var_os("SHIM_MEASURE").is_none() {
        println!("skipped: SHIM_MEASURE is not set");
        return;
    }
    run(async |world| {
        let mut running = world.start("head -c 1073741824 /dev/zero").await;
        let mut stdout = running.stdout.take().unwrap();
        let (began, mut bytes) = (Instant::now(), 0);
        let mut buffer = vec![0; 64 << 10];
        loop {
            match stdout.read(&mut buffer).await.unwrap() {
                0 => break,
                read => bytes += read,
            }
        }
        let took = began.elapsed().as_secs_f64();
        let ticks = |pid: &str| -> u64 {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
            fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
        };
        let (host, guest) = (ticks("self"), ticks(&world.pid().to_string()));
        let rate = f64::from(u32::try_from(bytes >> 20).unwrap()) / took;
        println!("{rate:.0} MiB/s; processor: host {host}0 ms, agent {guest}0 ms");
        running.exit().await;
        running.container.delete().await.unwrap();
    });
}

/// Bytes that compress to nothing and repeat never.
struct Random(u64);

impl Random {
    fn block(&mut self) -> Vec<u8> {
        let words = (0..8192).flat_map(|_| {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0.to_le_bytes()
        });
        words.collect()
    }
}

/// A sum in which the order counts.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sum {
    length: usize,
    sum: u64,
}

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        self.length += bytes.len();
        for byte in bytes {
            self.sum = self.sum.wrapping_mul(0x0100_0000_01b3) ^ u64::from(*byte);
        }
    }
}
