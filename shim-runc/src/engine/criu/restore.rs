//! Making the processes of a container again.

use std::{fs::File, os::fd::OwnedFd, path::Path};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use shim_core::{
    Context, Error, Result, Streams,
    linux::signal_pidfd,
    model::{Pid, Signal},
};
use shim_protos::criu::{CgroupMode, CgroupRoot, InheritFd, Opts, ReqType};

use super::{
    Criu, Folder, JOINED, Subject, cgroups_mode, empty_namespaces, mounts,
    streams::Names,
    swrk::{FIRST_FILE, Heard, Line, Notification, Swrk, check},
};
use crate::engine::{
    files::Given,
    hooks::Hooked,
    launch::{Launched, Launcher},
};

/// The name of CRIU's log in its work directory.
const LOG: &str = "restore.log";

/// What a container is restored from, and how.
#[derive(Debug)]
pub(crate) struct Restoring<'a> {
    pub(crate) image: &'a Path,
    /// Where CRIU works.
    pub(crate) work: &'a Path,
    pub(crate) streams: &'a Streams,
    pub(crate) allowed: &'a Allowed,
    /// What its processes are confined by: `apparmor:` or `selinux:`, and a name.
    pub(crate) lsm_profile: Option<&'a str>,
    pub(crate) hooked: Option<&'a Hooked>,
}

/// What may be restored; criu(8) explains the options.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// Open TCP connections.
    pub open_tcp: bool,
    /// Unix sockets that lead out of the container.
    pub external_unix_sockets: bool,
    /// A terminal that is the caller's own.
    pub terminal: bool,
    /// File locks.
    pub file_locks: bool,
    /// Memory that is restored is taken out of the checkpoint.
    pub auto_dedup: bool,
    /// Namespaces that are not restored but made, by the names of the OCI spec.
    pub empty_namespaces: Vec<String>,
    /// What becomes of cgroups: one of CRIU's words.
    pub cgroups_mode: Option<String>,
    /// The context of mounts under SELinux.
    pub lsm_mount_context: Option<String>,
}

/// Restores a container, whose cgroup is there. Hooks of the host's side run when its namespaces are.
///
/// # Errors
/// `Unsupported` without a CRIU that works; else what CRIU says, or a hook. No process is left that
/// is not in the cgroup.
pub(crate) async fn restore(
    subject: &Subject<'_>,
    criu: &Criu,
    launcher: &Launcher,
    asked: Restoring<'_>,
) -> Result<Launched> {
    let mut opts = options(asked.allowed, asked.lsm_profile)?;
    let image = Folder::open(asked.image).context("open the checkpoint")?;
    if subject.namespaces.has_users() {
        image.let_pass()?;
    }
    let names = Names::read(&image.path)?;
    make_targets(subject, launcher).await.context("prepare the root filesystem")?;
    let (mut files, mut inherited) = (Vec::new(), Vec::new());
    if let Streams::Pipes { stdin, stdout, stderr } = asked.streams {
        for (number, stream) in [stdin, stdout, stderr].into_iter().enumerate() {
            files.push(names.fit(number, stream)?);
        }
        inherited = names.inherited();
    }
    join(subject, &mut files, &mut inherited)?;
    let work = Folder::make(asked.work)?;
    subject.describe(&mut opts, (&image, &work), LOG);
    opts.inherit_fd = inherited;
    opts.external = mounts::given(&mounts::of(subject), &image.path)?;
    let mut root = CgroupRoot::new();
    root.path = Some(subject.cgroup.path().as_str().to_owned());
    opts.cg_root = vec![root];
    // Until its exit is adopted, the init process is an orphan.
    let hold = launcher.reaper().hold();
    let swrk = Swrk::begin(criu, launcher.reaper(), files).await?;
    let ignores = opts.manage_cgroups_mode == Some(CgroupMode::IGNORE.into());
    let joined = if ignores { swrk.join(subject.cgroup) } else { Ok(()) };
    let mut talk = Talk { line: &swrk.line, asked: &asked, launcher, init: None, terminal: None };
    let done = match joined {
        Ok(()) => talk.until_restored(opts).await,
        Err(err) => Err(err.context("join the cgroup")),
    };
    let Talk { init, terminal, .. } = talk;
    let done = swrk.conclude(done, &work.path.join(LOG)).await;
    let adopted = done.and_then(|pid| Ok((pid, hold.adopt_orphan(pid)?)));
    match adopted {
        Ok((pid, (pidfd, exit))) => Ok(Launched { pid, pidfd, exit, terminal, gate: None }),
        Err(err) => {
            // CRIU ends what it has made, unless it was ended itself.
            if let Some((pidfd, exit)) = init.and_then(|pid| hold.adopt_orphan(pid).ok()) {
                let _ = signal_pidfd(&pidfd, Signal::KILL);
                exit.await;
            }
            Err(err)
        }
    }
}

/// What is asked for, without what is known of the container.
fn options(allowed: &Allowed, lsm_profile: Option<&str>) -> Result<Opts> {
    let mut opts = Opts::new();
    opts.rst_sibling = Some(true);
    opts.tcp_established = Some(allowed.open_tcp);
    opts.ext_unix_sk = Some(allowed.external_unix_sockets);
    opts.shell_job = Some(allowed.terminal);
    opts.file_locks = Some(allowed.file_locks);
    opts.auto_dedup = Some(allowed.auto_dedup);
    opts.empty_ns = empty_namespaces(&allowed.empty_namespaces)?;
    opts.manage_cgroups_mode = Some(cgroups_mode(allowed.cgroups_mode.as_deref())?.into());
    opts.lsm_mount_context.clone_from(&allowed.lsm_mount_context);
    opts.lsm_profile = lsm_profile.map(str::to_owned);
    Ok(opts)
}

/// Makes what is missing in the root filesystem to mount on, by mounting all of it for a moment in a
/// mount namespace that nobody else is in.
async fn make_targets(subject: &Subject<'_>, launcher: &Launcher) -> Result<()> {
    let plan = subject.plan.mounts_only();
    let launched = launcher.launch(&plan, &Given::default(), None).await?;
    drop(launched.gate);
    launched.exit.await;
    Ok(())
}

/// Opens the namespaces that the container joins, for CRIU to find under their names.
fn join(
    subject: &Subject<'_>,
    files: &mut Vec<OwnedFd>,
    inherited: &mut Vec<InheritFd>,
) -> Result<()> {
    for (kind, _, key) in JOINED {
        let Some(path) = subject.namespaces.path(kind) else { continue };
        let opened = File::open(path).with_context(|| format!("open {}", path.display()))?;
        let mut one = InheritFd::new();
        one.key = Some(key.to_owned());
        one.fd = Some(FIRST_FILE + i32::try_from(files.len()).unwrap_or_default());
        inherited.push(one);
        files.push(opened.into());
    }
    Ok(())
}

/// The conversation with CRIU, and what it has brought so far.
struct Talk<'a> {
    line: &'a Line,
    asked: &'a Restoring<'a>,
    launcher: &'a Launcher,
    init: Option<Pid>,
    terminal: Option<OwnedFd>,
}

impl Talk<'_> {
    async fn until_restored(&mut self, opts: Opts) -> Result<Pid> {
        self.line.ask(ReqType::RESTORE, opts).await?;
        let mut trouble = None;
        loop {
            match self.line.next().await? {
                Heard::Notification(notification) => {
                    let done = self.attend(notification).await;
                    self.line.agree(done.is_ok()).await?;
                    trouble = trouble.or(done.err());
                }
                // It was our own refusal.
                Heard::Answer(answer) if trouble.is_none() => {
                    check(&answer)?;
                    return Pid::new(answer.restore.pid);
                }
                Heard::Closed if trouble.is_none() => return Err(Error::other("it has ended")),
                _ => return Err(trouble.unwrap_or_else(|| Error::other("refused"))),
            }
        }
    }

    async fn attend(&mut self, notification: Notification) -> Result<()> {
        let Notification { moment, pid, file } = notification;
        match moment.as_str() {
            "setup-namespaces" => {
                let pid = Pid::new(pid)?;
                self.init = Some(pid);
                let Some(hooked) = self.asked.hooked else { return Ok(()) };
                hooked.run(self.launcher, &hooked.hooks.host, "creating", Some(pid)).await
            }
            "orphan-pts-master" => {
                let master = file.ok_or_else(|| Error::other("the terminal is missing"))?;
                if !matches!(self.asked.streams, Streams::Terminal) {
                    return Err(Error::invalid("the checkpoint has a terminal, and nobody for it"));
                }
                fcntl(&master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
                self.terminal = Some(master);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
