//! Terminals that are elsewhere: a socket with their bytes.

use std::{
    net::Shutdown,
    os::{fd::AsFd, unix::net::UnixStream},
    sync::{Arc, mpsc},
};

use nix::{sys::stat::Mode, unistd::mkfifo};

use super::*;

struct Remote {
    console: Console,
    /// The process's side.
    far: UnixStream,
    /// The client's side of stdin.
    stdin: File,
    sizes: mpsc::Receiver<WindowSize>,
}

/// A process whose stdin is a fifo, and whose output goes to the file `out`.
async fn remote(stage: &Stage) -> Remote {
    let fifo = stage.path("in");
    mkfifo(&fifo, Mode::S_IRWXU).unwrap();
    let out = format!("file://{}", stage.path("out").display());
    let uris = StdioUris::parse(fifo.to_str().unwrap(), &out, "", true).unwrap();
    let (relay, _terminal) = stage.open_uris(&uris).await.unwrap();
    let stdin = OpenOptions::new().write(true).open(&fifo).unwrap();
    let (near, far) = UnixStream::pair().unwrap();
    far.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let (tell, sizes) = mpsc::channel();
    let resize: crate::Resize = Box::new(move |size| {
        tell.send(size).unwrap();
        Ok(())
    });
    let terminal = Terminal::Remote { stream: near.into(), resize };
    Remote { console: relay.run(Some(terminal)).unwrap(), far, stdin, sizes }
}

/// Reads on a thread of its own: the copier has this one.
async fn read(far: &UnixStream, bytes: usize) -> Vec<u8> {
    let far = far.try_clone().unwrap();
    let read = move || {
        let mut buffer = vec![0; bytes];
        (&far).read_exact(&mut buffer).map(|()| buffer)
    };
    tokio::task::spawn_blocking(read).await.unwrap().unwrap()
}

#[tokio::test]
async fn bytes_go_both_ways_and_a_size_its_own() {
    let stage = Stage::new();
    let mut remote = remote(&stage).await;
    let size = WindowSize { height: 3, width: 4 };
    remote.console.resize(size).unwrap();
    assert_eq!(remote.sizes.recv().unwrap(), size);
    remote.stdin.write_all(b"typed").unwrap();
    assert_eq!(read(&remote.far, 5).await, b"typed");
    remote.far.write_all(b"words").unwrap();
    until("the words", || stage.read("out") == "words").await;
}

#[tokio::test]
async fn much_is_copied_whole_to_one_who_is_slow() {
    let stage = Stage::new();
    let remote = remote(&stage).await;
    let all: Arc<Vec<u8>> = Arc::new((0..1_u32 << 18).flat_map(u32::to_le_bytes).collect());
    let (given, mut stdin, mut far) =
        (Arc::clone(&all), remote.stdin, remote.far.try_clone().unwrap());
    let typed = tokio::task::spawn_blocking(move || stdin.write_all(&given));
    assert!(read(&remote.far, all.len()).await == *all, "what arrives is what was sent");
    typed.await.unwrap().unwrap();
    let given = Arc::clone(&all);
    tokio::task::spawn_blocking(move || far.write_all(&given)).await.unwrap().unwrap();
    remote.far.shutdown(Shutdown::Write).unwrap();
    soon(remote.console.drained()).await;
    assert!(fs::read(stage.path("out")).unwrap() == *all, "what is kept is what was printed");
}

#[tokio::test]
async fn the_end_of_output_leaves_the_input_open() {
    let stage = Stage::new();
    let mut remote = remote(&stage).await;
    remote.far.write_all(b"last").unwrap();
    remote.far.shutdown(Shutdown::Write).unwrap();
    until("the last words", || stage.read("out") == "last").await;
    remote.stdin.write_all(b"more").unwrap();
    assert_eq!(read(&remote.far, 4).await, b"more");
    soon(remote.console.drained()).await;
}

#[tokio::test]
async fn an_end_that_leaves_input_unread_keeps_the_output() {
    let stage = Stage::new();
    let mut remote = remote(&stage).await;
    remote.stdin.write_all(b"unread").unwrap();
    let arrived = || crate::linux::sys::unread(remote.far.as_fd()).unwrap() == 6;
    until("the input has arrived", arrived).await;
    remote.far.write_all(b"last").unwrap();
    drop(remote.far);
    soon(remote.console.drained()).await;
    assert_eq!(stage.read("out"), "last");
}
