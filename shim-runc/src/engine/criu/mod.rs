//! Saving a container's processes to files, and making them again: by CRIU, criu(8).
//!
//! ```text
//! shim ── fork, exec ──▶ criu swrk 3 ── ptrace ──▶ the container's processes, into files
//!   ──── request ────────▶ │
//!   ◀─── notification ─────┤ ── CLONE_PARENT ────▶ an init process, a child of the shim
//!   ◀─── response ─────────┘
//! ```
//! What leads out of a container is no part of the files. It is named while it is saved, and given
//! when it is restored: mounts of the host (`mounts`), standard streams (`streams`), namespaces that
//! were joined.

mod dump;
mod log;
mod mounts;
mod restore;
mod streams;
mod swrk;

use std::{
    fs::{DirBuilder, File},
    os::{
        fd::AsRawFd,
        unix::fs::{DirBuilderExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use shim_core::{Context, Error, Kind, Result};
use shim_protos::criu::{CgroupMode, Opts};

pub use self::{dump::Extra, restore::Allowed};
pub(crate) use self::{
    dump::{Saving, dump},
    restore::{Restoring, restore},
};
use super::{
    cgroup::Cgroup,
    plan::{Namespaces, Plan},
};
use crate::programs;

/// The configuration that runc's callers give CRIU.
const CONFIG: &str = "/etc/criu/runc.conf";
/// Kinds of namespaces that may be somebody else's: what CRIU calls them, and the name by which such
/// a one is kept, which is runc's.
const JOINED: [(i32, &str, &str); 2] =
    [(libc::CLONE_NEWNET, "net", "extRootNetNS"), (libc::CLONE_NEWPID, "pid", "extRootPidNS")];
/// Everything but debugging in detail: what runc asks for, and what errors are made from.
const LOG_LEVEL: i32 = 4;

/// Which CRIU there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Criu(Option<Box<str>>);

impl Criu {
    /// The one of a name or an absolute path; an empty one stands for the one in `PATH`.
    pub(crate) fn of(name: &str) -> Self {
        Self((!name.is_empty()).then(|| name.into()))
    }

    fn find(&self) -> Result<PathBuf> {
        let name = self.0.as_deref().unwrap_or("criu");
        let found = programs::find(name).with_context(|| format!("criu: {name}"));
        found.map_err(|err| err.with_kind(Kind::Unsupported))
    }
}

/// The container that is saved or restored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    /// As it was made, or would be.
    pub(crate) plan: &'a Plan,
    pub(crate) namespaces: &'a Namespaces,
    pub(crate) cgroup: &'a Cgroup,
    /// A file with settings for CRIU, from the spec's annotations.
    pub(crate) config: Option<&'a str>,
}

impl Subject<'_> {
    /// Sets the options that saving and restoring share: the images' and the work's directories among
    /// them, and the log's name in the latter.
    fn describe(&self, opts: &mut Opts, (image, work): (&Folder, &Folder), log: &str) {
        opts.images_dir_fd = Some(image.file.as_raw_fd());
        opts.work_dir_fd = Some(work.file.as_raw_fd());
        opts.log_file = Some(log.to_owned());
        opts.log_level = Some(LOG_LEVEL);
        opts.notify_scripts = Some(true);
        opts.orphan_pts_master = Some(true);
        opts.evasive_devices = Some(true);
        opts.manage_cgroups = Some(true);
        opts.root = self.plan.root().map(|root| root.to_string_lossy().into_owned());
        let config = self.config.or_else(|| Path::new(CONFIG).exists().then_some(CONFIG));
        opts.config_file = config.map(str::to_owned);
    }
}

/// What becomes of cgroups, by CRIU's words.
///
/// # Errors
/// `InvalidArgument` for another word.
fn cgroups_mode(word: Option<&str>) -> Result<CgroupMode> {
    Ok(match word.unwrap_or("soft") {
        "ignore" => CgroupMode::IGNORE,
        "none" => CgroupMode::NONE,
        "props" => CgroupMode::PROPS,
        "soft" => CgroupMode::SOFT,
        "full" => CgroupMode::FULL,
        "strict" => CgroupMode::STRICT,
        word => return Err(Error::invalid(format!("cgroups mode {word:?} is unknown"))),
    })
}

/// Flags of the namespaces that are not saved.
///
/// # Errors
/// `InvalidArgument` for one that has to be.
fn empty_namespaces(names: &[String]) -> Result<Option<u32>> {
    let mut flags = None;
    for name in names {
        if name != "network" {
            let why = format!("namespace {name:?} can't be left out of a checkpoint");
            return Err(Error::invalid(why));
        }
        flags = Some(libc::CLONE_NEWNET.cast_unsigned());
    }
    Ok(flags)
}

/// A directory that CRIU gets by its descriptor.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    file: File,
}

impl Folder {
    /// Makes it where it is missing: what is in it is the memory of programs.
    fn make(path: &Path) -> Result<Self> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.with_context(|| format!("make {}", path.display()))?;
        Self::open(path)
    }

    fn open(path: &Path) -> Result<Self> {
        let path = std::path::absolute(path)?;
        let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        if !file.metadata()?.is_dir() {
            return Err(Error::invalid(format!("{} is no directory", path.display())));
        }
        Ok(Self { path, file })
    }

    /// Lets everybody reach what is in it and permits it: the root of a user namespace is nobody here,
    /// and looks for files that may be missing.
    fn let_pass(&self) -> Result<()> {
        let mut permissions = self.file.metadata()?.permissions();
        permissions.set_mode(permissions.mode() | 0o011);
        let set = self.file.set_permissions(permissions);
        set.with_context(|| format!("change the mode of {}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_is_missing_is_told_by_its_name() {
        for name in ["no-such-criu", "/nowhere/criu", "./criu"] {
            let err = Criu::of(name).find().unwrap_err();
            assert_eq!(err.kind(), Kind::Unsupported);
            assert!(format!("{err:#}").starts_with(&format!("criu: {name}: ")), "{err:#}");
        }
        assert!(Criu::of("sh").find().unwrap().ends_with("sh"));
    }

    #[test]
    fn words_that_are_unknown_are_refused() {
        assert_eq!(cgroups_mode(None).unwrap(), CgroupMode::SOFT);
        assert_eq!(cgroups_mode(Some("ignore")).unwrap(), CgroupMode::IGNORE);
        assert_eq!(cgroups_mode(Some("hard")).unwrap_err().kind(), Kind::InvalidArgument);
        let names =
            |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(empty_namespaces(&[]).unwrap(), None);
        assert_eq!(empty_namespaces(&names(&["network"])).unwrap(), Some(0x4000_0000));
        let err = empty_namespaces(&names(&["network", "pid"])).unwrap_err();
        assert!(err.to_string().contains("\"pid\""), "{err}");
    }
}
