//! Streams with real files, pipes and children: this process stands for the container's.

use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    time::Instant,
};

use nix::{sys::signal::kill, unistd::Pid as RawPid};
use tokio::time;

use super::*;
use crate::{
    linux::Reaper,
    model::{Namespace, WindowSize},
};

mod remote;

struct Stage {
    dir: tempfile::TempDir,
    peers: Peers,
}

impl Stage {
    fn new() -> Self {
        let namespace = Namespace::parse("ns").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let loggers = Loggers::new(Reaper::default(), namespace);
        let exchange = Exchange::at(dir.path().join("socket"));
        Self { dir, peers: Peers { loggers, exchange } }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// A logging binary made of shell.
    fn script(&self, text: &str) -> String {
        let path = self.path("logger");
        // Written elsewhere first: a fork of another test might hold it open for writing.
        let fresh = self.path("fresh");
        fs::write(&fresh, format!("#!/bin/sh\ncd {}\n{text}\n", self.dir.path().display()))
            .unwrap();
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(&fresh, &path).unwrap();
        format!("binary://{}", path.display())
    }

    async fn open(&self, stdout: &str, stderr: &str) -> Result<(Relay, Streams)> {
        self.open_uris(&StdioUris::parse("", stdout, stderr, false).unwrap()).await
    }

    async fn open_uris(&self, uris: &StdioUris) -> Result<(Relay, Streams)> {
        let container = ContainerId::parse("c1").unwrap();
        soon(Relay::open(uris, &container, &self.peers)).await
    }
}

fn ends(streams: Streams) -> [File; 2] {
    let Streams::Pipes { stdout, stderr, .. } = streams else { panic!("no pipes") };
    [stdout.into(), stderr.into()]
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    time::timeout(Duration::from_secs(20), what).await.expect("within the limit")
}

async fn until(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn both_streams_of_one_file_keep_their_order() {
    let stage = Stage::new();
    let uri = format!("file://{}", stage.path("new/folder/log").display());
    fs::create_dir_all(stage.path("new/folder")).unwrap();
    fs::write(stage.path("new/folder/log"), "before\n").unwrap();
    let (relay, streams) = stage.open(&uri, &uri).await.unwrap();
    let console = relay.run(None).unwrap();
    let [mut out, mut err] = ends(streams);
    let mut expected = "before\n".to_owned();
    for n in 0..2000 {
        writeln!(out, "out {n}").unwrap();
        writeln!(err, "err {n}").unwrap();
        expected += &format!("out {n}\nerr {n}\n");
        tokio::task::yield_now().await;
    }
    drop((out, err));
    soon(console.drained()).await;
    assert_eq!(stage.read("new/folder/log"), expected);
}

#[tokio::test]
async fn one_stream_may_go_to_a_file_alone() {
    let stage = Stage::new();
    let uri = format!("file://{}", stage.path("deep/er/log").display());
    let (relay, streams) = stage.open("", &uri).await.unwrap();
    let console = relay.run(None).unwrap();
    let [mut out, mut err] = ends(streams);
    out.write_all(b"lost").unwrap();
    err.write_all(b"kept").unwrap();
    drop((out, err));
    soon(console.drained()).await;
    assert_eq!(stage.read("deep/er/log"), "kept");
    let mode = fs::metadata(stage.path("deep/er/log")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777 & !0o022, 0o644, "less the umask");
}

#[tokio::test]
async fn a_full_disk_costs_output_and_nothing_else() {
    let stage = Stage::new();
    let (relay, streams) = stage.open("file:///dev/full", "").await.unwrap();
    let console = relay.run(None).unwrap();
    let [mut out, _] = ends(streams);
    // Far more than a pipe holds, from a thread of its own: it must neither fail nor wait for ever.
    let writer = std::thread::spawn(move || out.write_all(&vec![b'x'; 4 << 20]));
    until("the writer gets rid of it all", || writer.is_finished()).await;
    writer.join().unwrap().unwrap();
    soon(console.drained()).await;
}

#[tokio::test]
async fn a_fifo_without_a_reader_is_no_file() {
    let stage = Stage::new();
    unistd::mkfifo(&stage.path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let uri = format!("file://{}", stage.path("fifo").display());
    let err = stage.open(&uri, "").await.unwrap_err();
    assert!(format!("{err:#}").starts_with("open stdout: open "), "{err:#}");
}

#[tokio::test]
async fn a_logging_binary_gets_both_streams_its_arguments_and_two_variables() {
    let stage = Stage::new();
    let uri = stage.script(
        "printf '%s\\n' \"$@\" > args
         tr '\\0' '\\n' < /proc/$$/environ | sort > env
         ls /proc/$$/fd > fds
         cut -d' ' -f5 /proc/$$/stat > group; echo $$ >> group
         echo >&5; exec 5>&-
         cat <&3 > out & cat <&4 > err; wait",
    );
    let (relay, streams) = stage.open(&format!("{uri}?key=a+b&flag"), "").await.unwrap();
    assert_eq!(stage.read("args"), "key\na b\nflag\n");
    let console = relay.run(None).unwrap();
    let [mut out, mut err] = ends(streams);
    out.write_all(b"one").unwrap();
    err.write_all(b"two").unwrap();
    drop((out, err));
    soon(console.drained()).await;
    soon(console.close()).await;
    assert_eq!((stage.read("out"), stage.read("err")), ("one".into(), "two".into()));
    let environment = stage.read("env");
    assert_eq!(environment, "CONTAINER_ID=c1\nCONTAINER_NAMESPACE=ns\n");
    // The shell has its script open beside what it was given, and keeps what it redirects; it
    // numbers its own from 10.
    let mut fds: Vec<u32> = stage.read("fds").lines().map(|fd| fd.parse().unwrap()).collect();
    fds.sort_unstable();
    assert_eq!(fds[..6], [0, 1, 2, 3, 4, 5]);
    assert!(fds.len() <= 8 && fds[6..].iter().all(|fd| (10..20).contains(fd)), "{fds:?}");
    let group = stage.read("group");
    let group: Vec<_> = group.lines().collect();
    assert_eq!(group[0], group[1], "it leads a group of its own");
    soon(stage.peers.loggers.end_all()).await;
}

#[tokio::test]
async fn a_binary_for_each_stream_reads_that_alone() {
    let stage = Stage::new();
    let uri = stage.script("exec 5>&-; cat <&3 >> \"$1.3\"; cat <&4 >> \"$1.4\"");
    let uris = [format!("{uri}?a"), format!("{uri}?b")];
    let (relay, streams) = stage.open(&uris[0], &uris[1]).await.unwrap();
    let console = relay.run(None).unwrap();
    let [mut out, mut err] = ends(streams);
    out.write_all(b"one").unwrap();
    err.write_all(b"two").unwrap();
    drop((out, err));
    soon(console.drained()).await;
    soon(console.close()).await;
    assert_eq!([stage.read("a.3"), stage.read("a.4")], ["one", ""]);
    assert_eq!([stage.read("b.3"), stage.read("b.4")], ["", "two"]);
}

#[tokio::test]
async fn a_binary_that_says_nothing_is_ready_in_the_first_version_only() {
    let stage = Stage::new();
    let uri = stage.script("exec 5>&-; cat <&3 > out");
    stage.open(&uri, "").await.unwrap();
    let err = stage.open(&uri.replace("binary:", "binary-v2:"), "").await.unwrap_err();
    let text = format!("{err:#}");
    assert!(text.contains("/logger: it ended without saying that it is ready"), "{text}");
    let uri = stage.script("echo >&5; exec cat <&3").replace("binary:", "binary-v2:");
    stage.open(&uri, "").await.unwrap();
    // None is left: their relays are gone.
    soon(stage.peers.loggers.end_all()).await;
}

#[tokio::test]
async fn a_binary_that_is_not_there_is_named() {
    let stage = Stage::new();
    let err = stage.open("binary:///no/such", "").await.unwrap_err();
    assert!(
        format!("{err:#}").contains("logging binary /no/such: run /no/such: ENOENT"),
        "{err:#}"
    );
    soon(stage.peers.loggers.end_all()).await;
}

#[tokio::test]
async fn a_binary_that_is_never_ready_is_killed() {
    let stage = Stage::new();
    let uri = stage.script("echo $$ > pid; trap '' TERM; while :; do sleep 1; done");
    let err = stage.open(&uri, "").await.unwrap_err();
    assert_eq!(err.kind(), crate::Kind::TimedOut, "{err:#}");
    assert!(format!("{err:#}").contains("it is not ready after"), "{err:#}");
    soon(stage.peers.loggers.end_all()).await;
    let pid: i32 = stage.read("pid").trim().parse().unwrap();
    assert!(kill(RawPid::from_raw(pid), None).is_err(), "it is collected");
}

#[tokio::test]
async fn a_dead_binary_takes_no_container_with_it() {
    let stage = Stage::new();
    let uri = stage.script("echo >&5; exit 3");
    let (relay, streams) = stage.open(&uri, "").await.unwrap();
    let console = relay.run(None).unwrap();
    let [mut out, _err] = ends(streams);
    let writer = std::thread::spawn(move || out.write_all(&vec![b'x'; 1 << 20]));
    until("the writer gets rid of it all", || writer.is_finished()).await;
    writer.join().unwrap().unwrap();
    soon(console.drained()).await;
    soon(console.close()).await;
}

#[tokio::test]
async fn a_deletion_does_not_wait_for_a_slow_binary_and_the_shim_does() {
    let stage = Stage::new();
    // It hears SIGTERM and needs its time then.
    let uri = stage.script(
        "trap 'echo term > told; sleep 3; echo done > told; exit' TERM
         echo $$ > pid; echo >&5; exec 5>&-; while :; do sleep 0.02; done",
    );
    let (relay, streams) = stage.open(&uri, "").await.unwrap();
    let console = relay.run(None).unwrap();
    drop(streams);
    let start = Instant::now();
    soon(console.close()).await;
    assert!(start.elapsed() < DRAIN_LIMIT + Duration::from_millis(500), "{:?}", start.elapsed());
    drop(console);
    soon(stage.peers.loggers.end_all()).await;
    assert_eq!(stage.read("told"), "done\n");
    let pid: i32 = stage.read("pid").trim().parse().unwrap();
    assert!(kill(RawPid::from_raw(pid), None).is_err(), "it is collected");
}

#[tokio::test]
async fn the_end_of_the_shim_ends_a_binary_with_what_it_started() {
    let stage = Stage::new();
    let uri = stage.script("sleep 1000 & echo $! > pid; echo >&5; exec 5>&-; cat <&3 > out; wait");
    let (relay, streams) = stage.open(&uri, "").await.unwrap();
    let _console = relay.run(None).unwrap();
    until("a child", || !stage.read("pid").is_empty()).await;
    soon(stage.peers.loggers.end_all()).await;
    let pid = stage.read("pid").trim().to_owned();
    let gone = || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    };
    until("the child is gone too", gone).await;
    drop(streams);
}

#[tokio::test]
async fn a_terminal_is_copied_to_a_binary_and_to_a_file() {
    let stage = Stage::new();
    let binary = stage.script("exec 5>&-; cat <&3 > out");
    let file = format!("file://{}", stage.path("file").display());
    for (uri, name) in [(binary, "out"), (file, "file")] {
        let uris = StdioUris::parse("", &uri, "", true).unwrap();
        let (relay, _terminal) = stage.open_uris(&uris).await.unwrap();
        let pty = nix::pty::openpty(None, None).unwrap();
        let console = relay.run(Some(pty.master.into())).unwrap();
        console.resize(WindowSize { height: 3, width: 4 }).unwrap();
        let mut slave = File::from(pty.slave);
        slave.write_all(b"words\n").unwrap();
        until("the words", || stage.read(name) == "words\r\n").await;
        drop(slave);
        soon(console.drained()).await;
        soon(console.close()).await;
    }
}

#[tokio::test]
async fn a_plain_file_behind_a_bare_path_is_handed_over() {
    let stage = Stage::new();
    fs::write(stage.path("file"), "").unwrap();
    let (_relay, streams) = stage.open(stage.path("file").to_str().unwrap(), "").await.unwrap();
    let [out, _] = ends(streams);
    assert!(out.metadata().unwrap().is_file());
    let mut nothing = String::new();
    assert_eq!(File::open(stage.path("file")).unwrap().read_to_string(&mut nothing).unwrap(), 0);
}
