//! One run of CRIU: it is given a socket, asked, and ends with its answer.

use std::{
    ffi::CString,
    fs::{self, File},
    os::fd::OwnedFd,
    path::Path,
};

use nix::errno::Errno;
use shim_core::{
    Context, Error, Kind, Result,
    backend::ExitFuture,
    linux::{Program, Reaper, given_files, spawn_program, watch},
};
use shim_protos::{
    criu::{Features, Opts, Req, ReqType, Resp},
    protobuf::Message,
};
use tokio::io::{Interest, unix::AsyncFd};

use super::{Criu, log};
use crate::{
    engine::{
        cgroup::Cgroup,
        hooks::{memory, printed},
        launch::socket_pair,
        stem::ready,
        sys::{self, Files},
    },
    programs::{Unwanted, c_string, ending, environment},
};

/// The first version that mounts a root filesystem from a plain directory, and not from a mount point
/// alone.
const OLDEST: (i32, i32) = (3, 17);
/// The number of CRIU's end of the socket.
const SOCKET: usize = 3;
/// The number of the first file that it is given beside.
pub(super) const FIRST_FILE: i32 = 4;
/// More than any message of CRIU's, in bytes.
const LONGEST: usize = 64 << 10;

/// A CRIU that runs.
pub(super) struct Swrk {
    pub(super) line: Line,
    exit: ExitFuture,
    unwanted: Unwanted,
    printed: OwnedFd,
}

/// The way to it.
pub(super) struct Line(AsyncFd<OwnedFd>);

/// What CRIU said.
pub(super) enum Heard {
    /// Something is about to be done, or has been; it waits for a [`Line::agree`].
    Notification(Notification),
    /// That is all.
    Answer(Box<Resp>),
    /// Nothing: it has ended.
    Closed,
}

/// A moment in CRIU's work.
pub(super) struct Notification {
    /// Its name, as in criu(8) under `--action-script`.
    pub(super) moment: String,
    /// The init process, where there is one.
    pub(super) pid: i32,
    pub(super) file: Option<OwnedFd>,
}

impl Swrk {
    /// Starts CRIU with these files, from number [`FIRST_FILE`] on.
    ///
    /// # Errors
    /// `Unsupported` when there is none, or one that is too old, or one that does not work here.
    pub(super) async fn begin(criu: &Criu, reaper: &Reaper, files: Vec<OwnedFd>) -> Result<Self> {
        let path = criu.find()?;
        let (ours, theirs) = socket_pair()?;
        let output = memory(c"criu")?;
        let null = File::open("/dev/null")?.into();
        let mut streams = vec![null, output.try_clone()?, output.try_clone()?, theirs];
        streams.extend(files);
        let number = CString::new(SOCKET.to_string()).expect("a number has no NUL");
        let program = Program {
            path: c_string(path.as_os_str())?,
            arguments: vec![c"criu".into(), c"swrk".into(), number],
            environment: environment(),
            directory: c"/".into(),
            streams,
            terminal: false,
            // Nobody else would end what it has frozen.
            dies_with_us: true,
            files: given_files(),
        };
        let (pid, exit, gate) = spawn_program(reaper, &program)?;
        // A copy of ours would keep its end of the socket open.
        drop(program);
        let line = Line(watch(ours)?);
        let swrk = Self { line, exit, unwanted: Unwanted::new(pid), printed: output };
        if let Err(err) = gate.open().await {
            swrk.end().await;
            return Err(err.with_kind(Kind::Unsupported));
        }
        swrk.check_version().await
    }

    async fn check_version(self) -> Result<Self> {
        let (swrk, answer) = self.question(&Req::new(), ReqType::VERSION).await?;
        let version = &answer.version;
        let version = (version.major_number, version.minor_number);
        if version < OLDEST {
            swrk.end().await;
            let (major, minor) = version;
            let (oldest, least) = OLDEST;
            let why = format!("criu {major}.{minor} is too old: {oldest}.{least} is the least");
            return Err(Error::new(Kind::Unsupported, why));
        }
        Ok(swrk)
    }

    /// Makes sure that changes of memory can be followed.
    ///
    /// # Errors
    /// `Unsupported` when the kernel keeps no track of them.
    pub(super) async fn check_tracking(self) -> Result<Self> {
        let mut features = Features::new();
        features.mem_track = true;
        let mut req = Req::new();
        req.features = Some(features).into();
        let (swrk, answer) = self.question(&req, ReqType::FEATURE_CHECK).await?;
        if answer.success && answer.features.mem_track {
            return Ok(swrk);
        }
        swrk.end().await;
        let why = "the kernel does not tell what memory has changed (CONFIG_MEM_SOFT_DIRTY)";
        Err(Error::new(Kind::Unsupported, why))
    }

    /// Asks for something that is told at once, before the real request.
    async fn question(self, req: &Req, kind: ReqType) -> Result<(Self, Box<Resp>)> {
        let mut req = req.clone();
        req.type_ = kind.into();
        req.keep_open = Some(true);
        let heard = match self.line.send(&req).await {
            Ok(()) => self.line.next().await,
            Err(err) => Err(err),
        };
        match heard {
            Ok(Heard::Answer(answer)) => Ok((self, answer)),
            Ok(Heard::Notification(_)) => Err(Error::other("criu speaks out of order")),
            Ok(Heard::Closed) | Err(_) => {
                let how = self.end().await;
                Err(Error::new(Kind::Unsupported, format!("criu does not work here: {how}")))
            }
        }
    }

    /// Has it join a cgroup: what it makes is born there.
    ///
    /// # Errors
    /// The hierarchy that it could not join.
    pub(super) fn join(&self, cgroup: &Cgroup) -> Result<()> {
        for directory in cgroup.directories() {
            // Not by `tasks`, as a process of one thread does for itself; the wait is nothing beside
            // what is to come.
            let path = directory.path.join("cgroup.procs");
            let joined = fs::write(&path, self.unwanted.pid().to_string());
            joined.with_context(|| format!("write {}", path.display()))?;
        }
        Ok(())
    }

    /// Waits until it has ended, which it does without the socket, and tells how.
    async fn end(self) -> String {
        let Self { line, exit, unwanted, printed: output } = self;
        drop(line);
        let exit = exit.await;
        unwanted.has_ended();
        ending(exit.status) + &printed(output)
    }

    /// The same, and adds to a failure what its log says of it.
    ///
    /// # Errors
    /// That failure.
    pub(super) async fn conclude<T>(self, done: Result<T>, log: &Path) -> Result<T> {
        let how = self.end().await;
        done.map_err(|err| {
            let errors = Some(log::errors(log)).filter(|errors| !errors.is_empty());
            let (errors, log) = (errors.unwrap_or(how), log.display());
            // The log's path comes last: it is the longest, and for those who have read the rest.
            Error::new(err.kind(), format!("criu: {err:#}: {errors} (more is in {log})"))
        })
    }
}

impl Line {
    /// Asks for what it was started for.
    ///
    /// # Errors
    /// When it is gone.
    pub(super) async fn ask(&self, kind: ReqType, opts: Opts) -> Result<()> {
        let mut req = Req::new();
        req.type_ = kind.into();
        req.opts = Some(opts).into();
        self.send(&req).await
    }

    /// Answers a notification.
    ///
    /// # Errors
    /// When it is gone.
    pub(super) async fn agree(&self, is_fine: bool) -> Result<()> {
        let mut req = Req::new();
        req.type_ = ReqType::NOTIFY.into();
        req.notify_success = Some(is_fine);
        self.send(&req).await
    }

    async fn send(&self, req: &Req) -> Result<()> {
        let bytes = req.write_to_bytes().map_err(|err| Error::other(err.to_string()))?;
        let sent = ready(&self.0, Interest::WRITABLE, |socket| sys::send(socket, &bytes, &[]));
        sent.await.context("ask criu")
    }

    /// Waits for its next word.
    ///
    /// # Errors
    /// When that makes no sense.
    pub(super) async fn next(&self) -> Result<Heard> {
        let mut bytes = vec![0; LONGEST];
        let heard = ready(&self.0, Interest::READABLE, |socket| {
            let mut files = Files::new();
            let length = sys::receive(socket, &mut bytes, &mut files)?;
            Ok((length, files.take()))
        });
        let (length, file) = match heard.await {
            Ok((0, _)) | Err(Errno::ECONNRESET) => return Ok(Heard::Closed),
            heard => heard.context("hear criu")?,
        };
        let answer = Resp::parse_from_bytes(&bytes[..length])
            .map_err(|err| Error::other(format!("criu makes no sense: {err}")))?;
        Ok(if answer.type_ == ReqType::NOTIFY.into() {
            let (moment, pid) = (answer.notify.script.clone(), answer.notify.pid);
            Heard::Notification(Notification { moment, pid, file })
        } else {
            Heard::Answer(Box::new(answer))
        })
    }
}

/// Whether CRIU has done what it was asked.
///
/// # Errors
/// What it says instead.
pub(super) fn check(answer: &Resp) -> Result<()> {
    if answer.success {
        return Ok(());
    }
    // What it says besides is the first error in its log, which need not be the one that counts.
    Err(match answer.cr_errno {
        0 => Error::other("it has failed"),
        number => Error::from(Errno::from_raw(number)),
    })
}
