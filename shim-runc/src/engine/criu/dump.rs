//! Saving the processes of a container.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use shim_core::{Checkpoint, Error, Result, linux::Reaper, model::Pid};
use shim_protos::criu::{Opts, ReqType};

use super::{
    Criu, Folder, JOINED, Subject, cgroups_mode, empty_namespaces,
    mounts::{Held, Table},
    streams::Names,
    swrk::{Heard, Line, Swrk, check},
};

/// The name of CRIU's log in its work directory.
const LOG: &str = "dump.log";

/// How a container is to be saved.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Saving<'a> {
    pub(crate) asked: &'a Checkpoint,
    pub(crate) extra: Extra,
    /// Where CRIU works if nothing is asked for: a directory that may be removed.
    pub(crate) scratch: &'a Path,
}

/// What only the command line can ask for; criu(8) explains the options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extra {
    /// Only memory is saved, for a checkpoint that builds on it; the container runs on.
    pub is_before: bool,
    /// Files that are open and have no name are given one.
    pub link_remap: bool,
    /// Memory that is saved again is taken out of the earlier checkpoint.
    pub auto_dedup: bool,
    /// TCP connections that are not established yet are left out.
    pub tcp_skip_in_flight: bool,
}

/// Saves a live container.
///
/// # Errors
/// `Unsupported` without a CRIU that works; else what CRIU says. The container lives on then, but it
/// may be frozen.
pub(crate) async fn dump(
    subject: &Subject<'_>,
    criu: &Criu,
    reaper: &Reaper,
    init: Pid,
    saving: Saving<'_>,
) -> Result<()> {
    let Saving { asked, extra, scratch } = saving;
    let mut opts = options(asked, extra)?;
    let mut swrk = Swrk::begin(criu, reaper, Vec::new()).await?;
    if extra.is_before || asked.parent_path.is_some() {
        swrk = swrk.check_tracking().await?;
    }
    let image = Folder::make(&asked.path)?;
    let (work, is_own) = match &asked.work_path {
        Some(path) => (Folder::make(path)?, false),
        None => (Folder::make(scratch)?, true),
    };
    subject.describe(&mut opts, (&image, &work), LOG);
    if !extra.is_before {
        leave_out(&mut opts, subject, init, &image)?;
    }
    opts.pid = Some(init.raw());
    opts.freeze_cgroup = freezer(subject);
    let kind = if extra.is_before { ReqType::PRE_DUMP } else { ReqType::DUMP };
    let done = talk(&swrk.line, kind, opts).await;
    swrk.conclude(done, &work.path.join(LOG)).await?;
    if is_own {
        // What stays goes with the directory that it is in.
        let _ = fs::remove_dir_all(&work.path);
    }
    Ok(())
}

/// What is asked for, without what is known of the container.
fn options(asked: &Checkpoint, extra: Extra) -> Result<Opts> {
    let mut opts = Opts::new();
    opts.leave_running = Some(!asked.exit || extra.is_before);
    opts.tcp_established = Some(asked.open_tcp);
    opts.ext_unix_sk = Some(asked.external_unix_sockets);
    opts.shell_job = Some(asked.terminal);
    opts.file_locks = Some(asked.file_locks);
    opts.link_remap = Some(extra.link_remap);
    opts.auto_dedup = Some(extra.auto_dedup);
    opts.tcp_skip_in_flight = Some(extra.tcp_skip_in_flight);
    opts.manage_cgroups = Some(true);
    opts.manage_cgroups_mode = Some(cgroups_mode(asked.cgroups_mode.as_deref())?.into());
    opts.empty_ns = empty_namespaces(&asked.empty_namespaces)?;
    opts.track_mem = Some(extra.is_before || asked.parent_path.is_some());
    opts.parent_img = asked.parent_path.as_deref().map(relative).transpose()?;
    Ok(opts)
}

/// CRIU finds an earlier checkpoint from the directory of this one.
fn relative(parent: &Path) -> Result<String> {
    if parent.is_absolute() {
        let why = format!("parent path {} has to be relative to the image path", parent.display());
        return Err(Error::invalid(why));
    }
    Ok(parent.to_string_lossy().into_owned())
}

/// Names all that leads out of the container.
fn leave_out(opts: &mut Opts, subject: &Subject<'_>, init: Pid, image: &Folder) -> Result<()> {
    let table = Table::of(init)?;
    let held = Held::of(subject, init, &table)?;
    held.write(&image.path)?;
    let names = Names::of(init, &table)?;
    opts.external = held.names;
    opts.external.extend(names.outer());
    for (kind, name, key) in JOINED {
        if subject.namespaces.path(kind).is_some() {
            let inode = fs::metadata(format!("/proc/{init}/ns/{name}"))?.ino();
            opts.external.push(format!("{name}[{inode}]:{key}"));
        }
    }
    names.write(&image.path)
}

/// The directory by which CRIU lets the processes stand still, all of them at once.
fn freezer(subject: &Subject<'_>) -> Option<String> {
    let directories = subject.cgroup.directories();
    let is_freezer = |name: &str| name.split(',').any(|one| one == "freezer");
    let v1 = directories.iter().find(|one| is_freezer(&one.hierarchy));
    let found = v1.or_else(|| directories.iter().find(|one| one.hierarchy.is_empty()));
    found.map(|one| one.path.as_path()).map(Path::to_string_lossy).map(String::from)
}

async fn talk(line: &Line, kind: ReqType, opts: Opts) -> Result<()> {
    line.ask(kind, opts).await?;
    loop {
        match line.next().await? {
            // The network is locked by CRIU itself.
            Heard::Notification(_) => line.agree(true).await?,
            Heard::Answer(answer) => return check(&answer),
            Heard::Closed => return Err(Error::other("it has ended")),
        }
    }
}
