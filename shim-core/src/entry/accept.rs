//! Whom the shim listens to: its own user alone, for who may call may run anything as that user.

use std::time::Duration;

use nix::unistd;
use tokio::{
    net::{UnixListener, UnixStream},
    time::sleep,
};

/// How long to let things be when no connection can be taken: out of descriptors, the next try
/// would fail as the last one did.
const PAUSE: Duration = Duration::from_millis(100);

/// The connections of one user.
#[derive(Debug)]
pub(super) struct Callers {
    listener: UnixListener,
    uid: u32,
    /// The last connection could not be taken.
    is_short: bool,
}

impl Callers {
    /// Takes connections of our own effective user.
    pub(super) fn of_own_user(listener: UnixListener) -> Self {
        Self { listener, uid: unistd::geteuid().as_raw(), is_short: false }
    }

    /// The next connection. None, once, when one can't be taken for want of something: who can spare
    /// some should, then.
    pub(super) async fn next(&mut self) -> Option<UnixStream> {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) if self.admits(&stream) => {
                    self.is_short = false;
                    return Some(stream);
                }
                // Dropped, it is closed.
                Ok(_) => {}
                Err(err) => {
                    if !self.is_short {
                        log::warn!("take a connection: {err}");
                        self.is_short = true;
                        return None;
                    }
                    sleep(PAUSE).await;
                }
            }
        }
    }

    fn admits(&self, stream: &UnixStream) -> bool {
        match stream.peer_cred() {
            Ok(peer) if peer.uid() == self.uid => return true,
            Ok(peer) => log::warn!("refused a connection of user {}", peer.uid()),
            Err(err) => log::warn!("refused a connection of nobody knows whom: {err}"),
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::{env, fs::File, process::Command};

    use tokio::time::{Instant, timeout};

    use super::*;

    fn listen() -> (tempfile::TempDir, Callers) {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("s")).unwrap();
        (dir, Callers::of_own_user(listener))
    }

    #[tokio::test]
    async fn own_connections_are_taken_and_others_closed() {
        let (dir, mut callers) = listen();
        let connect = || UnixStream::connect(dir.path().join("s"));
        let _ours = connect().await.unwrap();
        callers.next().await.unwrap();
        callers.uid += 1;
        let theirs = connect().await.unwrap();
        let taken = timeout(Duration::from_millis(50), callers.next()).await;
        assert!(taken.is_err(), "it is not for the server");
        theirs.readable().await.unwrap();
        assert_eq!(theirs.try_read(&mut [0]).unwrap(), 0, "it is closed");
    }

    /// In a process of its own, for it takes every descriptor that it can get.
    #[test]
    fn out_of_descriptors_is_waited_out() {
        const INSIDE: &str = "SHIM_TEST_INSIDE";
        if env::var_os(INSIDE).is_some() {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            return runtime.unwrap().block_on(exhaust());
        }
        let name = "entry::accept::tests::out_of_descriptors_is_waited_out";
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -n 64; exec \"$0\" --exact \"$1\""]);
        command.arg(env::current_exe().unwrap()).arg(name).env(INSIDE, "1");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }

    async fn exhaust() {
        let (dir, mut callers) = listen();
        let _client = UnixStream::connect(dir.path().join("s")).await.unwrap();
        let taken: Vec<_> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
        assert!(callers.next().await.is_none(), "who can spare descriptors is asked first");
        let mut waiting = Box::pin(callers.next());
        let mut polls = 0_u32;
        let counted = std::future::poll_fn(|cx| {
            polls += 1;
            waiting.as_mut().poll(cx)
        });
        assert!(timeout(PAUSE * 4, counted).await.is_err(), "there is no descriptor for it");
        assert!(polls < 20, "{polls} polls");
        drop((taken, waiting));
        let start = Instant::now();
        callers.next().await.unwrap();
        assert!(start.elapsed() < PAUSE * 4);
    }
}
