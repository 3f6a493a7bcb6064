//! Makes the guest's disk, and brings QEMU and the kernel, into the store of packages: each once.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{BED, command, recipe};
use crate::debs::{self, Deb, Store, Suite};

/// How long a system may take to come from the archive. On a quiet machine it is one minute.
const LIMIT: Duration = Duration::from_secs(900);

/// What a guest is booted from.
#[derive(Clone, Debug)]
pub struct Image {
    /// The unpacked packages of the host's side.
    pub machine: PathBuf,
    /// The guest's root disk; never written to.
    pub disk: PathBuf,
}

impl Image {
    /// The image of this recipe: found, else made, which takes minutes and an archive to ask.
    ///
    /// # Errors
    /// When it cannot be made: not root, no archive, a program missing.
    pub fn open(store: &Store) -> Result<Self> {
        let key = recipe::key(&recipe::machine_key());
        let machine = machine(store)?;
        let made = store.made(&format!("guest/image-{key}"), |dir| install(store, &machine, dir));
        Ok(Self { disk: made.context("make the guest's disk")?.join("disk"), machine })
    }

    /// The kernel's file.
    ///
    /// # Errors
    /// When there is none.
    pub fn kernel(&self) -> Result<PathBuf> {
        Ok(self.machine.join("boot").join(format!("vmlinuz-{}", release(&self.machine)?)))
    }
}

/// The unpacked packages of the host's side: QEMU and a kernel.
///
/// # Errors
/// When they do not come.
pub fn machine(store: &Store) -> Result<PathBuf> {
    let name = format!("guest/machine-{}", recipe::machine_key());
    store.made(&name, |dir| unpack(store, dir)).context("fetch QEMU and a kernel")
}

/// Unpacks QEMU and the kernel with all they depend on, the C library too: nothing of it is
/// installed, neither here nor there.
fn unpack(store: &Store, dir: &Path) -> Result<()> {
    let mut strap = debian(store, "extract", &recipe::MACHINE)?;
    let suite = Suite::Backports.name();
    strap.arg("--aptopt").arg(format!("APT::Default-Release \"{suite}\""));
    strap.arg(Suite::Bookworm.name()).arg(dir);
    strap.arg(debs::source(Suite::Bookworm)).arg(debs::source(Suite::Backports));
    with_log(dir, |log| command::run(&mut strap, LIMIT, log))
}

/// Installs the guest's system in a folder, and makes a disk of it.
fn install(store: &Store, machine: &Path, dir: &Path) -> Result<()> {
    let root = dir.join("root");
    let mut strap = debian(store, "minbase", &recipe::PACKAGES)?;
    strap.arg(Suite::Bookworm.name()).arg(&root).arg(debs::source(Suite::Bookworm));
    with_log(dir, |log| {
        command::run(&mut strap, LIMIT, log)?;
        let modules = Path::new("lib/modules");
        command::run(
            Command::new("cp").arg("-a").arg(machine.join(modules)).arg(root.join("lib")),
            LIMIT,
            log,
        )?;
        let depmod = ["depmod", &release(machine)?];
        command::run(Command::new("chroot").arg(&root).args(depmod), LIMIT, log)?;
        furnish(&root)?;
        make_disk(&root, &dir.join("disk"), None, recipe::ROOM, log)
    })?;
    fs::remove_dir_all(root).context("remove what is on the disk now")
}

/// Makes a disk of a folder's files, with room for more, in MiB.
pub(super) fn make_disk(
    from: &Path,
    disk: &Path,
    label: Option<&str>,
    room: u64,
    log: &Path,
) -> Result<()> {
    let mut mkfs = Command::new("mkfs.ext4");
    mkfs.args(["-q", "-F", "-m", "0", "-d"]).arg(from);
    mkfs.args(label.into_iter().flat_map(|label| ["-L", label]));
    let mib = size(from)?.div_ceil(1 << 20);
    // Tables and the journal take a part of it.
    mkfs.env("PATH", PATH).arg(disk).arg(format!("{}M", mib + mib / 8 + 64 + room));
    command::run(&mut mkfs, LIMIT, log)
}

/// Where mkfs and chroot are; a user's own path may lack it.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// mmdebstrap, as a process whose mounts and children end with it.
fn debian(store: &Store, variant: &str, packages: &[&str]) -> Result<Command> {
    store.fetch(&[Deb::MMDEBSTRAP])?;
    let mut strap = Command::new("unshare");
    strap.args(["--mount", "--pid", "--fork", "--kill-child", "perl"]);
    strap.arg(store.unpacked(Deb::MMDEBSTRAP)?.join("usr/bin/mmdebstrap"));
    strap.args(["--mode=root", "--format=directory"]).arg(format!("--variant={variant}"));
    strap
        .arg(format!("--include={}", packages.join(",")))
        .env("PATH", PATH)
        .env("LC_ALL", "C.UTF-8");
    Ok(strap)
}

/// Puts the recipe's files and links into the system.
fn furnish(root: &Path) -> Result<()> {
    fs::create_dir(root.join(BED.trim_start_matches('/')))?;
    for (path, text) in recipe::files() {
        let path = root.join(path);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    }
    for (path, target) in recipe::links() {
        let path = root.join(path);
        // Some are there already, as links to what they would start.
        let _ = fs::remove_file(&path);
        symlink(target, &path).with_context(|| format!("make the link {}", path.display()))?;
    }
    Ok(())
}

/// The release of the only kernel.
///
/// # Errors
/// When there is not one.
pub fn release(machine: &Path) -> Result<String> {
    let modules = machine.join("lib/modules");
    let names = fs::read_dir(&modules).with_context(|| format!("read {}", modules.display()))?;
    let names: Vec<_> = names.flatten().map(|entry| entry.file_name()).collect();
    match names.as_slice() {
        [one] => Ok(one.to_string_lossy().into_owned()),
        others => bail!("{}: {others:?} is not one kernel", modules.display()),
    }
}

/// What a folder's files take, each rounded up to a block.
fn size(dir: &Path) -> Result<u64> {
    let mut total = 0;
    for entry in fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))? {
        let entry = entry?;
        let told = entry.metadata()?;
        total += told.len().next_multiple_of(4096);
        if told.is_dir() {
            total += size(&entry.path())?;
        }
    }
    Ok(total)
}

/// Has a log beside the folder that is made, and removes it when all is well or told.
fn with_log<T>(dir: &Path, act: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    let name = dir.file_name().unwrap_or(OsStr::new("guest")).to_string_lossy();
    let log = dir.with_file_name(format!("{name}.log"));
    let done = act(&log);
    // It was never made if the first program could not start.
    let _ = fs::remove_file(log);
    done
}
