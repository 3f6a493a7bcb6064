//! The guest's end of the line: a port of a virtio serial device, by its name.

use std::{
    fs, io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    pin::Pin,
    task::{Context as Turn, Poll, ready},
    time::Duration,
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, open},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::stat::Mode,
    unistd,
};
use shim_core::{Context, Error, Kind, Result, linux::watch};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf, unix::AsyncFd},
    time::{Instant, sleep},
};

/// The port's name, which the machine gives it.
pub(crate) const NAME: &str = "shim.line";

/// Where the kernel lists ports.
const PORTS: &str = "/sys/class/virtio-ports";

/// How long a port may take to come: on a busy host a guest's own start is slow.
const LIMIT: Duration = Duration::from_secs(60);

/// From one look for the port to the next: its name and its connection come by messages that the kernel
/// tells nobody of.
const PACE: Duration = Duration::from_millis(2);

/// An open port.
#[derive(Debug)]
pub(super) struct Port(AsyncFd<OwnedFd>);

impl Port {
    /// Waits for the port, and for the host at its other end.
    ///
    /// # Errors
    /// `TimedOut` when it does not come; else when it cannot be opened.
    pub(super) async fn open() -> Result<Self> {
        let until = Instant::now() + LIMIT;
        let port = loop {
            match find()? {
                Some(port) => break port,
                None if Instant::now() > until => {
                    let why = format!("no port {NAME} in {PORTS}");
                    return Err(Error::new(Kind::TimedOut, why));
                }
                None => sleep(PACE).await,
            }
        };
        let path = Path::new("/dev").join(port);
        let flags = OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let port = open(&path, flags, Mode::empty());
        let port = port.with_context(|| format!("open {}", path.display()))?;
        // Until the host is known to be there, a read would tell the end of the line.
        while is_hung_up(&port)? {
            if Instant::now() > until {
                return Err(Error::new(Kind::TimedOut, "nobody is at the line's other end"));
            }
            sleep(PACE).await;
        }
        Ok(Self(watch(port)?))
    }
}

/// The device that has the port's name, once there is one.
fn find() -> Result<Option<String>> {
    let entries = match fs::read_dir(PORTS) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
        entries => entries.context("read /sys/class/virtio-ports")?,
    };
    let mut devices = entries.flatten().map(|entry| entry.path());
    let named = |path: &Path| fs::read_to_string(path.join("name")).ok();
    let device = devices.find(|path| named(path).is_some_and(|name| name.trim_end() == NAME));
    let device = device.and_then(|path| Some(path.file_name()?.to_str()?.to_owned()));
    // The node may come later than the name.
    Ok(device.filter(|name| Path::new("/dev").join(name).exists()))
}

fn is_hung_up(port: &OwnedFd) -> Result<bool> {
    let mut ports = [PollFd::new(port.as_fd(), PollFlags::empty())];
    poll(&mut ports, PollTimeout::ZERO).context("look at the line")?;
    Ok(ports[0].revents().is_some_and(|events| events.contains(PollFlags::POLLHUP)))
}

impl AsyncRead for Port {
    fn poll_read(
        self: Pin<&mut Self>,
        turn: &mut Turn<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(turn))?;
            match unistd::read(self.0.get_ref(), buffer.initialize_unfilled()) {
                Ok(count) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(Errno::EAGAIN) => ready.clear_ready(),
                Err(Errno::EINTR) => {}
                Err(errno) => return Poll::Ready(Err(errno.into())),
            }
        }
    }
}

impl AsyncWrite for Port {
    fn poll_write(
        self: Pin<&mut Self>,
        turn: &mut Turn<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.0.poll_write_ready(turn))?;
            match unistd::write(self.0.get_ref(), bytes) {
                Ok(count) => return Poll::Ready(Ok(count)),
                // Without the host it takes nothing any more; and the runtime, which takes a hang-up for
                // the end of all waiting, would call for ever.
                Err(Errno::EAGAIN) if is_hung_up(self.0.get_ref()).unwrap_or(true) => {
                    return Poll::Ready(Err(Errno::EPIPE.into()));
                }
                Err(Errno::EAGAIN) => ready.clear_ready(),
                Err(Errno::EINTR) => {}
                Err(errno) => return Poll::Ready(Err(errno.into())),
            }
        }
    }

    /// A port keeps nothing back.
    fn poll_flush(self: Pin<&mut Self>, _turn: &mut Turn<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// A port has no half of its own to close; the host hears the end of the streams on it.
    fn poll_shutdown(self: Pin<&mut Self>, _turn: &mut Turn<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
