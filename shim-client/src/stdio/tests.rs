//! The test plays the shim at the other end of the fifos.

use std::fs;
use std::sync::{Arc, Mutex};

use super::*;

const SOON: Duration = Duration::from_secs(5);

#[derive(Clone, Default)]
struct Collected(Arc<Mutex<Vec<u8>>>);

impl Collected {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Collected {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
}

fn sinks() -> (Sinks, Collected, Collected) {
    let (out, err) = (Collected::default(), Collected::default());
    (Sinks { stdout: Box::new(out.clone()), stderr: Box::new(err.clone()) }, out, err)
}

#[test]
fn output_is_copied_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let fifos = Fifos::create(&dir.path().join("f"), Shape::Pipes).unwrap();
    let (sinks, out, err) = sinks();
    run(async {
        let streams = Streams::open(&fifos, sinks).unwrap();
        let big = "x".repeat(300_000);
        fs::write(fifos.stdout(), &big).unwrap();
        fs::write(fifos.stderr(), "oops").unwrap();
        streams.finish(SOON).await;
        assert_eq!(out.text(), big);
        assert_eq!(err.text(), "oops");
    });
    fifos.remove().unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn streams_that_nobody_opened_end_by_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let fifos = Fifos::create(dir.path(), Shape::Terminal).unwrap();
    assert_eq!(fifos.stderr(), "");
    run(async {
        let streams = Streams::open(&fifos, sinks().0).unwrap();
        streams.finish(Duration::from_millis(50)).await;
    });
}

#[test]
fn input_reaches_a_shim_that_comes_late_and_ends_when_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let fifos = Fifos::create(dir.path(), Shape::Pipes).unwrap();
    let source = dir.path().join("source");
    fs::write(&source, "hello").unwrap();
    run(async {
        let streams = Streams::open(&fifos, sinks().0).unwrap();
        let end = streams.feed(File::open(&source).unwrap()).unwrap();
        let fifo = timeout(SOON, end).await.unwrap().unwrap();
        let mut shim = File::open(fifos.stdin()).unwrap();
        drop(fifo);
        let mut text = String::new();
        shim.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
    });
}

#[test]
fn a_lost_reader_is_reported_and_the_rest_thrown_away() {
    /// Takes that many writes, then has lost its reader.
    struct Closing(u32);
    impl Write for Closing {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(1).ok_or(io::ErrorKind::BrokenPipe)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let fifos = Fifos::create(dir.path(), Shape::Terminal).unwrap();
    run(async {
        let sinks = Sinks { stdout: Box::new(Closing(2)), stderr: Box::new(io::sink()) };
        let mut streams = Streams::open(&fifos, sinks).unwrap();
        let lost = streams.reader_lost().unwrap();
        fs::write(fifos.stdout(), "x".repeat(200_000)).unwrap();
        timeout(SOON, lost).await.unwrap().unwrap();
        streams.finish(SOON).await;
    });
}
