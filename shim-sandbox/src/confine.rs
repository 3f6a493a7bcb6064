//! `confine`: a process of ours that gives up what it does not need, and becomes a program that handles
//! what a guest says: QEMU, virtiofsd.
//!
//! It is made by shim-core's spawn as the first of a pid namespace, with numbered descriptors and an empty
//! environment. What is left to do takes more than the few calls that a child of ours may make before it
//! executes something: hence a subcommand.

use std::{
    ffi::{CString, OsStr, OsString},
    fs,
    os::{
        fd::AsFd,
        unix::{ffi::OsStrExt, fs::FileTypeExt},
    },
    path::{Path, PathBuf},
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::{CloneFlags, unshare},
    sys::{
        prctl,
        resource::{Resource, setrlimit},
        signal::Signal,
    },
    unistd::{Gid, Uid, chdir, execve, pivot_root, setgroups, setresgid, setresuid},
};
use rustix::thread::{
    CapabilitySet, clear_ambient_capability_set, remove_capability_from_bounding_set,
};
use shim_core::{Context, Error, Result};

/// The subcommand's name.
pub const COMMAND: &str = "confine";

/// Where the new root is built: a folder that there always is, and that nothing to be seen lies in.
const ROOT: &str = "/proc";

/// What a program has to do without.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Confinement {
    /// Files of cgroups, `tasks` or `cgroup.procs`, that it joins by writing to.
    pub cgroups: Vec<PathBuf>,
    /// The user and group that it becomes, with no capability left. Without one it stays root, and keeps
    /// the mounts that it sees: for a program that confines itself further.
    pub user: Option<(u32, u32)>,
    /// All that it sees of the filesystem, read-only.
    pub sees: Vec<PathBuf>,
    /// How likely it is to be killed when the machine has no memory left, -1000 to 1000.
    pub oom_score: Option<i32>,
}

impl Confinement {
    /// The arguments that make our program confine another, the subcommand first.
    pub fn arguments(&self, program: &[OsString]) -> Vec<OsString> {
        let mut arguments = vec![OsString::from(COMMAND)];
        let mut push =
            |flag: &str, value: &OsStr| arguments.extend([flag.into(), value.to_owned()]);
        for path in &self.cgroups {
            push("--cgroup", path.as_os_str());
        }
        if let Some((user, group)) = self.user {
            push("--user", OsStr::new(&format!("{user}:{group}")));
        }
        for path in &self.sees {
            push("--see", path.as_os_str());
        }
        if let Some(score) = self.oom_score {
            push("--oom-score", OsStr::new(&score.to_string()));
        }
        arguments.push("--".into());
        arguments.extend_from_slice(program);
        arguments
    }

    /// Reads them, without the subcommand; returns the program, too.
    fn parse(arguments: &[OsString]) -> Result<(Self, &[OsString])> {
        let mut confinement = Self::default();
        let mut rest = arguments;
        loop {
            let (flag, behind) = rest.split_first().ok_or_else(|| no_value("--"))?;
            if flag == "--" {
                return Ok((confinement, behind));
            }
            let flag = flag.to_string_lossy();
            let (value, behind) = behind.split_first().ok_or_else(|| no_value(&flag))?;
            let text = value.to_string_lossy();
            let wrong = || Error::invalid(format!("{flag} {text:?}"));
            match &*flag {
                "--cgroup" => confinement.cgroups.push(value.into()),
                "--see" => confinement.sees.push(value.into()),
                "--oom-score" => confinement.oom_score = Some(text.parse().map_err(|_| wrong())?),
                "--user" => {
                    let (user, group) = text.split_once(':').ok_or_else(wrong)?;
                    let ids = (user.parse(), group.parse());
                    let (Ok(user), Ok(group)) = ids else { return Err(wrong()) };
                    confinement.user = Some((user, group));
                }
                _ => return Err(Error::invalid(format!("unknown flag {flag}"))),
            }
            rest = behind;
        }
    }
}

fn no_value(flag: &str) -> Error {
    Error::invalid(format!("{flag} is missing, or what belongs behind it"))
}

/// Becomes a confined program; returns only an error.
///
/// # Errors
/// What could not be given up, or why the program does not run.
pub(crate) fn command(arguments: &[OsString]) -> Result<()> {
    let (confinement, program) = Confinement::parse(arguments)?;
    let words = program.iter().map(|word| CString::new(word.as_bytes()));
    let words = words.collect::<Result<Vec<_>, _>>().map_err(|_| Error::invalid("a NUL"))?;
    let path = words.first().ok_or_else(|| Error::invalid("no program to confine"))?;
    confine(&confinement)?;
    let nothing: [CString; 0] = [];
    execve(path, &words, &nothing).with_context(|| format!("run {}", path.to_string_lossy()))?;
    Ok(())
}

fn confine(confinement: &Confinement) -> Result<()> {
    for path in &confinement.cgroups {
        fs::write(path, "0").with_context(|| format!("join {}", path.display()))?;
    }
    if let Some(score) = confinement.oom_score {
        fs::write("/proc/self/oom_score_adj", score.to_string()).context("set the OOM score")?;
    }
    // A dump would be the guest's memory in a file.
    setrlimit(Resource::RLIMIT_CORE, 0, 0).context("limit core dumps")?;
    let apart = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
    unshare(apart).context("leave the namespaces")?;
    if let Some((user, group)) = confinement.user {
        unshare(CloneFlags::CLONE_NEWNS).context("leave the mount namespace")?;
        see_only(&confinement.sees)?;
        become_user(user, group)?;
    }
    prctl::set_no_new_privs().context("give up new privileges")?;
    // A change of the user would take it back: hence last.
    prctl::set_pdeathsig(Signal::SIGKILL).context("die with the shim")?;
    is_parent_alive()
}

/// The parent may have died before its death could be a signal. It holds the other end of our standard
/// error; its pid is not to be seen from here.
fn is_parent_alive() -> Result<()> {
    let stderr = std::io::stderr();
    let mut ends = [PollFd::new(stderr.as_fd(), PollFlags::empty())];
    poll(&mut ends, PollTimeout::ZERO).context("look for the shim")?;
    match ends[0].any() {
        Some(false) => Ok(()),
        _ => Err(Error::other("the shim is gone")),
    }
}

fn become_user(user: u32, group: u32) -> Result<()> {
    clear_ambient_capability_set().map_err(nix_of).context("clear ambient capabilities")?;
    for capability in CapabilitySet::all().iter() {
        // The kernel may be older than the list.
        match remove_capability_from_bounding_set(capability) {
            Err(rustix::io::Errno::INVAL) => {}
            done => done.map_err(nix_of).context("give up a capability")?,
        }
    }
    let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
    setgroups(&[]).context("leave all groups")?;
    setresgid(group, group, group).with_context(|| format!("become group {group}"))?;
    // It takes all capabilities that are left.
    setresuid(user, user, user).with_context(|| format!("become user {user}"))
}

fn nix_of(errno: rustix::io::Errno) -> std::io::Error {
    errno.into()
}

const NOWHERE: Option<&str> = None;

/// Makes a root of these paths alone the process's own.
fn see_only(sees: &[PathBuf]) -> Result<()> {
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(NOWHERE, "/", NOWHERE, private, NOWHERE).context("keep mounts to ourselves")?;
    // Looked at before something covers it.
    let links: Vec<_> = sees.iter().map(|path| fs::read_link(path).ok()).collect();
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let options = Some("mode=755,size=1m");
    mount(Some("tmpfs"), ROOT, Some("tmpfs"), flags, options).context("mount a root")?;
    for (path, link) in sees.iter().zip(links) {
        see(path, link.as_deref()).with_context(|| format!("show {}", path.display()))?;
    }
    let readonly = flags | MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    mount(NOWHERE, ROOT, NOWHERE, readonly, NOWHERE).context("keep the root as it is")?;
    chdir(ROOT).context("enter the root")?;
    // The old one lies over the new one then.
    pivot_root(".", ".").context("change the root")?;
    umount2(".", MntFlags::MNT_DETACH).context("leave the old root")?;
    chdir("/").context("enter the root")
}

/// Shows one path: a link as it is, anything else bound read-only.
fn see(path: &Path, link: Option<&Path>) -> Result<()> {
    let inner = path.strip_prefix("/").map_err(|_| Error::invalid("the path is not absolute"))?;
    let place = Path::new(ROOT).join(inner);
    if let Some(above) = place.parent() {
        fs::create_dir_all(above)?;
    }
    if let Some(link) = link {
        return Ok(std::os::unix::fs::symlink(link, place)?);
    }
    let kind = fs::metadata(path)?.file_type();
    if kind.is_dir() {
        fs::create_dir_all(&place)?;
    } else {
        fs::File::create(&place)?;
    }
    let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(path), &place, NOWHERE, bind, NOWHERE)?;
    let mut flags =
        MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID;
    if !kind.is_char_device() {
        flags |= MsFlags::MS_NODEV;
    }
    mount(NOWHERE, &place, NOWHERE, flags, NOWHERE)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read_as_they_are_written() {
        let program = ["/bin/qemu".into(), "--".into(), "--see".into()];
        for confinement in [
            Confinement::default(),
            Confinement {
                cgroups: vec!["/sys/fs/cgroup/a/tasks".into(), "/b".into()],
                user: Some((65534, 100)),
                sees: vec!["/usr".into()],
                oom_score: Some(-5),
            },
        ] {
            let arguments = confinement.arguments(&program);
            assert_eq!(arguments[0], COMMAND);
            let (read, rest) = Confinement::parse(&arguments[1..]).unwrap();
            assert_eq!((read, rest), (confinement, &program[..]));
        }
    }

    #[test]
    fn wrong_arguments_are_named() {
        for (line, word) in [
            ("--user 1", "--user"),
            ("--user root:root --", "--user"),
            ("--see", "--see"),
            ("--what 1 --", "--what"),
            ("--user 1:1", "--"),
            ("--oom-score x --", "--oom-score"),
        ] {
            let words: Vec<_> = line.split(' ').map(OsString::from).collect();
            let err = Confinement::parse(&words).unwrap_err();
            assert!(err.to_string().contains(word), "{line}: {err}");
        }
    }
}
