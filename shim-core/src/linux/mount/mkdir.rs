//! Directories that a `mkdir/` mount asks for: an overlay's upper and work directory, on an image.
//!
//! They are made below the mounts made before, or below containerd's own root, and nowhere else.
//! openat2(2) keeps links from leading out.

use std::{
    fs::File,
    os::fd::{AsFd, OwnedFd},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, openat2},
    sys::stat::{Mode, fchmod, mkdirat},
    unistd::{Gid, Uid, UnlinkatFlags, fchown, unlinkat},
};

use super::format::Earlier;
use crate::{
    error::{Context, Error, Result},
    model::{Bundle, Mount},
};

const OPTION: &str = "X-containerd.mkdir.";
/// What containerd makes where no mode is given.
const USUAL_MODE: u32 = 0o700;

/// A directory to make.
#[derive(Debug, PartialEq, Eq)]
struct Directory {
    path: PathBuf,
    /// Permission bits.
    mode: u32,
    /// User and group; none is our own.
    owner: Option<(u32, u32)>,
}

/// Makes the directories that a mount's options name, and takes these options off it.
///
/// # Errors
/// The directory in question. `InvalidArgument` for an option that does not parse, a place that is
/// not for us to change, and a directory that is there with another mode or owner.
pub(super) fn make_all(mount: &mut Mount, earlier: &[Earlier], bundle: &Bundle) -> Result<()> {
    let mut wanted = Vec::new();
    for option in &mount.options {
        if let Some(value) = option.strip_prefix(OPTION) {
            wanted.push(parse(value).with_context(|| format!("mount option {option:?}"))?);
        }
    }
    mount.options.retain(|option| !option.starts_with(OPTION));
    for each in wanted {
        make(&each, earlier, bundle).with_context(|| format!("make {}", each.path.display()))?;
    }
    Ok(())
}

/// Reads `path=<path>[:<mode>[:<uid>:<gid>]]`, the mode in octal.
fn parse(value: &str) -> Result<Directory> {
    let value = value.strip_prefix("path=").ok_or_else(|| Error::invalid("it is unknown"))?;
    let parts: Vec<&str> = value.splitn(4, ':').collect();
    let number = |text: &str| {
        let wrong = || Error::invalid(format!("{text:?} is no user's or group's number"));
        text.parse::<u32>().map_err(|_| wrong())
    };
    let (path, mode, owner) = match parts[..] {
        [path] => (path, None, None),
        [path, mode] => (path, Some(mode), None),
        [path, mode, uid, gid] => (path, Some(mode), Some((number(uid)?, number(gid)?))),
        _ => return Err(Error::invalid("a user without a group")),
    };
    let mode = mode.map_or(Ok(USUAL_MODE), |text| {
        let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
        mode.ok_or_else(|| Error::invalid(format!("{text:?} is no mode")))
    })?;
    Ok(Directory { path: path.into(), mode, owner })
}

fn make(wanted: &Directory, earlier: &[Earlier], bundle: &Bundle) -> Result<()> {
    let (ground, below) = ground(&wanted.path, earlier, bundle)?;
    let (Some(parent), Some(name)) = (below.parent(), below.file_name()) else {
        return Err(Error::invalid("it has no name of its own"));
    };
    let ground = File::open(&ground).with_context(|| format!("open {}", ground.display()))?;
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let parent = open(&ground, parent, OFlag::O_PATH).context("open its parent")?;
    let name = Path::new(name);
    match mkdirat(&parent, name, Mode::from_bits_truncate(wanted.mode)) {
        Ok(()) => {}
        // From the container's last start, most likely.
        Err(Errno::EEXIST) => return compare(&open(&ground, below, OFlag::O_RDONLY)?, wanted),
        Err(err) => return Err(err.into()),
    }
    let finished = open(&parent, name, OFlag::O_RDONLY | OFlag::O_NOFOLLOW)
        .and_then(|made| finish(&made, wanted));
    if finished.is_err() {
        // Left like this it would be in the way of the next try.
        let _stays = unlinkat(&parent, name, UnlinkatFlags::RemoveDir);
    }
    finished.map_err(Error::from)
}

/// Where a directory may be made, and its path from there.
fn ground<'a>(path: &'a Path, earlier: &[Earlier], bundle: &Bundle) -> Result<(PathBuf, &'a Path)> {
    let mounted = earlier.iter().map(|each| PathBuf::from(&each.point));
    for ground in mounted.chain(root_of_containerd(bundle)) {
        if let Ok(below) = path.strip_prefix(&ground) {
            return Ok((ground, below));
        }
    }
    Err(Error::invalid("it is neither below a mount made before nor below containerd's root"))
}

/// containerd's root, which is where it would make directories itself. A bundle has a link to its
/// working directory: `<root>/<plugin>/<namespace>/<id>`.
fn root_of_containerd(bundle: &Bundle) -> Option<PathBuf> {
    let work = std::fs::read_link(bundle.path().join("work")).ok()?;
    let root = work.ancestors().nth(3)?;
    // Nothing below "/" is more than everything.
    (root.is_absolute() && root.parent().is_some()).then(|| root.to_owned())
}

fn open(directory: impl AsFd, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
    let flags = flags | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    openat2(directory, path, OpenHow::new().flags(flags).resolve(resolve))
}

/// Gives a new directory its owner, and the mode whatever our umask.
fn finish(made: &OwnedFd, wanted: &Directory) -> nix::Result<()> {
    if let Some((uid, gid)) = wanted.owner {
        fchown(made, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    fchmod(made, Mode::from_bits_truncate(wanted.mode))
}

fn compare(found: &OwnedFd, wanted: &Directory) -> Result<()> {
    let found = File::from(found.try_clone()?).metadata()?;
    let mode = found.mode() & 0o777;
    if mode != wanted.mode {
        return Err(Error::invalid(format!(
            "it is there with mode {mode:o}, not {:o}",
            wanted.mode
        )));
    }
    let (uid, gid) = (found.uid(), found.gid());
    match wanted.owner {
        Some(owner) if owner != (uid, gid) => Err(Error::invalid(format!(
            "it is there, and of {uid}:{gid}, not {}:{}",
            owner.0, owner.1
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;
    use crate::error::Kind;

    fn directory(path: &str, mode: u32, owner: Option<(u32, u32)>) -> Directory {
        Directory { path: path.into(), mode, owner }
    }

    #[test]
    fn an_option_names_a_path_a_mode_and_an_owner() {
        assert_eq!(parse("path=/a/b").unwrap(), directory("/a/b", 0o700, None));
        assert_eq!(parse("path=/a:0755").unwrap(), directory("/a", 0o755, None));
        assert_eq!(parse("path=/a:711:7:8").unwrap(), directory("/a", 0o711, Some((7, 8))));
    }

    #[test]
    fn an_option_that_does_not_parse_says_why() {
        for (option, expected) in [
            ("mode=7", "it is unknown"),
            ("path=/a:9", "\"9\" is no mode"),
            ("path=/a:1777", "\"1777\" is no mode"),
            ("path=/a:755:1", "a user without a group"),
            ("path=/a:755:x:1", "\"x\" is no user's or group's number"),
            ("path=/a:755:1:2:3", "\"2:3\" is no user's or group's number"),
        ] {
            assert_eq!(parse(option).unwrap_err().to_string(), expected, "{option}");
        }
    }

    /// A directory that stands for an earlier mount, beside a bundle with a `work` link.
    struct Stage {
        dir: tempfile::TempDir,
        bundle: Bundle,
        earlier: Vec<Earlier>,
    }

    impl Stage {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            for name in ["bundle", "root/plugin/ns/id", "mounted", "other"] {
                fs::create_dir_all(dir.path().join(name)).unwrap();
            }
            symlink(dir.path().join("root/plugin/ns/id"), dir.path().join("bundle/work")).unwrap();
            let bundle = Bundle::new(dir.path().join("bundle")).unwrap();
            let point = dir.path().join("mounted").display().to_string();
            let earlier = vec![Earlier { source: String::new(), target: String::new(), point }];
            Self { dir, bundle, earlier }
        }

        fn make(&self, below: &str) -> Result<()> {
            let option = format!("{OPTION}path={}/{below}", self.dir.path().display());
            let mut mount = Mount { options: vec![option, "ro".into()], ..Mount::default() };
            let made = make_all(&mut mount, &self.earlier, &self.bundle);
            assert!(made.is_err() || mount.options == ["ro"]);
            made
        }

        fn mode(&self, below: &str) -> u32 {
            fs::metadata(self.dir.path().join(below)).unwrap().mode() & 0o7777
        }
    }

    #[test]
    fn directories_are_made_where_containerd_would() {
        let stage = Stage::new();
        stage.make("mounted/upper:0777").unwrap();
        stage.make("mounted/upper/one").unwrap();
        stage.make("root/snapshots:0711").unwrap();
        assert_eq!(stage.mode("mounted/upper"), 0o777);
        assert_eq!(stage.mode("mounted/upper/one"), 0o700);
        assert_eq!(stage.mode("root/snapshots"), 0o711);
        // As the next start of the same container asks.
        stage.make("mounted/upper:0777").unwrap();
    }

    #[test]
    fn directories_are_made_nowhere_else() {
        let stage = Stage::new();
        let dir = stage.dir.path();
        symlink(dir.join("other"), dir.join("mounted/away")).unwrap();
        symlink("../other", dir.join("mounted/up")).unwrap();
        fs::write(dir.join("mounted/file"), "").unwrap();
        for place in [
            "other/x",
            "mounted",
            "mounted/",
            "mounted/..",
            "mounted/../other/x",
            "mounted2/x",
            "mounted/away/x",
            "mounted/up/x",
            "mounted/away",
            "mounted/no/x",
            "mounted/file",
            "x",
        ] {
            stage.make(place).expect_err(place);
        }
        assert_eq!(fs::read_dir(dir.join("other")).unwrap().count(), 0);
        assert_eq!(stage.make("other/x").unwrap_err().kind(), Kind::InvalidArgument);
        fs::remove_file(stage.bundle.path().join("work")).unwrap();
        stage.make("root/x").unwrap_err();
    }

    #[test]
    fn a_directory_that_is_there_must_be_the_one_asked_for() {
        let stage = Stage::new();
        stage.make("mounted/upper:0755").unwrap();
        let err = format!("{:#}", stage.make("mounted/upper:0700").unwrap_err());
        assert!(err.ends_with("upper: it is there with mode 755, not 700"), "{err}");
        let err = format!("{:#}", stage.make("mounted/upper:0755:77:78").unwrap_err());
        assert!(err.contains("it is there, and of ") && err.ends_with("not 77:78"), "{err}");
    }
}
