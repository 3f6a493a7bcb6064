//! News of processes that the kernel killed for want of memory.
//!
//! On cgroup v1 an eventfd is registered with the memory cgroup (cgroup-v1/memory.rst, section 10); on
//! v2 `memory.events` becomes readable out of band when it changes (cgroup-v2.rst), and its count of
//! kills tells whether it was that. Either is one descriptor, and no inotify instance, of which a
//! user has few.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use nix::{
    errno::Errno,
    sys::eventfd::{EfdFlags, EventFd},
    unistd,
};
use shim_core::{Context, Result, linux::watch_for};
use tokio::io::{Interest, unix::AsyncFd};

use super::cgroup::Cgroup;

/// The counters of cgroup v2.
const EVENTS: &str = "memory.events";

/// A watch over one container's memory.
#[derive(Debug)]
pub(crate) enum OomWatch {
    /// No memory controller: nothing is ever told.
    None,
    /// An eventfd counts.
    V1(AsyncFd<OwnedFd>),
    /// The file of counters changes.
    V2 {
        /// `memory.events`.
        events: AsyncFd<OwnedFd>,
        path: PathBuf,
        /// Kills told so far.
        told: AtomicU64,
    },
}

impl OomWatch {
    /// Begins to watch a cgroup that exists. A container runs as well without this news.
    pub(crate) fn of_live(cgroup: &Cgroup) -> Self {
        Self::of(cgroup).unwrap_or_else(|err| {
            log::warn!("{err:#}");
            Self::None
        })
    }

    /// The same, and an error for what could not be opened or registered.
    fn of(cgroup: &Cgroup) -> Result<Self> {
        let directories = cgroup.directories();
        let holds = |wanted: &str| {
            let mut found = directories.iter();
            found.find(|one| one.hierarchy.split(',').any(|controller| controller == wanted))
        };
        let watch = match (holds("memory"), holds("")) {
            (Some(v1), _) => Self::v1(&v1.path),
            (None, Some(v2)) if v2.path.join(EVENTS).exists() => Self::v2(&v2.path),
            _ => return Ok(Self::None),
        };
        watch.with_context(|| format!("watch the memory of {}", cgroup.path()))
    }

    fn v1(directory: &Path) -> Result<Self> {
        let counter = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let control = File::open(directory.join("memory.oom_control"))?;
        let request = format!("{} {}", counter.as_raw_fd(), control.as_raw_fd());
        let mut register =
            OpenOptions::new().write(true).open(directory.join("cgroup.event_control"))?;
        register.write_all(request.as_bytes())?;
        Ok(Self::V1(watch_for(counter.into(), Interest::READABLE)?))
    }

    fn v2(directory: &Path) -> Result<Self> {
        let path = directory.join(EVENTS);
        let events = watch_for(File::open(&path)?.into(), Interest::PRIORITY)?;
        let told = AtomicU64::new(kills(&path)?);
        Ok(Self::V2 { events, path, told })
    }

    /// Waits for the next kill.
    ///
    /// # Errors
    /// When the watch is broken.
    pub(crate) async fn next(&self) -> Result<()> {
        match self {
            Self::None => std::future::pending().await,
            Self::V1(counter) => next_v1(counter).await,
            Self::V2 { events, path, told } => loop {
                let mut changed = events.ready(Interest::PRIORITY).await?;
                changed.clear_ready();
                let now = kills(path)?;
                if told.swap(now, Ordering::Relaxed) != now {
                    return Ok(());
                }
            },
        }
    }
}

async fn next_v1(counter: &AsyncFd<OwnedFd>) -> Result<()> {
    loop {
        let mut readable = counter.readable().await?;
        let mut count = [0; 8];
        match unistd::read(counter.get_ref(), &mut count) {
            Ok(_) => return Ok(()),
            Err(Errno::EAGAIN) => readable.clear_ready(),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// How often the kernel has killed in a cgroup; 0 when it is gone.
fn kills(path: &Path) -> Result<u64> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    Ok(count.and_then(|count| count.trim().parse().ok()).unwrap_or(0))
}
