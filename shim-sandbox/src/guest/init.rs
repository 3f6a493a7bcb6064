//! The guest's first process, from the kernel to the line.
//!
//! It runs twice. As `/init` of the first filesystem it loads the modules, moves to a root of its own and
//! executes itself there: what the kernel unpacks into can never be left by `pivot_root`, which is how
//! containers get their root. Then it mounts what a system has and serves the host. There is nobody to
//! return to: whatever goes wrong is one line on the console, and the machine is off.

use std::{ffi::CString, fs, os::fd::AsRawFd, os::unix::fs::PermissionsExt, panic, path::Path};

use nix::{
    mount::{MsFlags, mount},
    sys::{
        reboot::{RebootMode, reboot},
        socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket},
    },
    unistd::{chdir, chroot, execve},
};
use shim_core::{Context, Error, Result};
use shim_runc::NativeBackend;

use super::{Ground, Places, cmdline::Told, modules, port::Port, serve};

/// What the kernel executes.
pub(crate) const INIT: &str = "/init";

/// Where it is in the root of its own. The folder has nothing else in it, since the engine shows it to
/// nobody in a form that can be written.
const SECOND: &str = "/sbin/shim/init";

/// Where the root of its own is built.
const ROOT: &str = "/root";

const MODULES: &str = "/modules";

/// Whether this process is a guest's first one.
pub(crate) fn is_first(name: &str) -> bool {
    std::process::id() == 1 && [INIT, SECOND].contains(&name)
}

/// Runs as the guest's first process; never returns. The engine was made at the beginning of `main`.
pub(crate) fn run(name: &str, engine: NativeBackend) -> ! {
    panic::set_hook(Box::new(|why| {
        say(&why.to_string());
        power_off();
    }));
    let done = if name == SECOND { second(engine) } else { first() };
    if let Err(err) = done {
        say(&format!("{err:#}"));
    }
    power_off()
}

/// Ends the machine.
fn power_off() -> ! {
    nix::unistd::sync();
    // QEMU is told to end where a machine would start again: that needs no ACPI.
    match reboot(RebootMode::RB_AUTOBOOT) {
        Ok(never) => match never {},
        // The end of the first process is the kernel's end, too.
        Err(_) => std::process::abort(),
    }
}

/// The kernel has given us the console.
fn say(text: &str) {
    use std::io::Write;
    // Nobody is left to tell when it is gone.
    let _unheard = writeln!(std::io::stderr(), "shim: {}", text.replace('\n', " "));
}

/// Moves to a root of its own.
fn first() -> Result<()> {
    modules::load(Path::new(MODULES))?;
    fs::create_dir_all(ROOT).context("make a root")?;
    attach("tmpfs", ROOT, MsFlags::empty(), "mode=755")?;
    let program = Path::new(ROOT).join(SECOND.trim_start_matches('/'));
    if let Some(folder) = program.parent() {
        fs::create_dir_all(folder).context("make a folder for the program")?;
    }
    fs::copy(INIT, &program).context("copy the program")?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).context("open the program")?;
    // Their memory is the guest's.
    fs::remove_file(INIT).context("remove the first program")?;
    fs::remove_dir_all(MODULES).context("remove the modules")?;
    chdir(ROOT).context("enter the root")?;
    let nothing: Option<&str> = None;
    mount(Some("."), "/", nothing, MsFlags::MS_MOVE, nothing).context("move the root")?;
    chroot(".").context("change the root")?;
    chdir("/").context("enter the root")?;
    let path = CString::new(SECOND).expect("a path of ours has no NUL");
    let environment = [c"PATH=/usr/sbin:/usr/bin:/sbin:/bin"];
    execve(&path, &[&path], &environment).context("execute the program again")?;
    Ok(())
}

/// Makes a system, and serves the host until the line ends.
fn second(engine: NativeBackend) -> Result<()> {
    mounts()?;
    loopback_up()?;
    let told = fs::read_to_string("/proc/cmdline").context("read /proc/cmdline")?;
    let told = Told::parse(&told)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("start the runtime")?.block_on(async {
        let line = Port::open().await?;
        serve(line, &told.word, engine, Places::default(), Ground::Machine).await.map(drop)
    })
}

fn mounts() -> Result<()> {
    let bare = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let devices = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    for (kind, place, flags, options) in [
        ("proc", "/proc", bare, ""),
        ("sysfs", "/sys", bare, ""),
        ("cgroup2", "/sys/fs/cgroup", bare, ""),
        ("devtmpfs", "/dev", MsFlags::MS_NOSUID, "mode=755"),
        ("devpts", "/dev/pts", devices, "newinstance,ptmxmode=0666,mode=0620,gid=5"),
        ("tmpfs", "/dev/shm", bare, "mode=1777"),
        ("mqueue", "/dev/mqueue", bare, ""),
        ("tmpfs", "/run", plain, "mode=755"),
        ("tmpfs", "/tmp", plain, "mode=1777"),
    ] {
        fs::create_dir_all(place).with_context(|| format!("make {place}"))?;
        attach(kind, place, flags, options)?;
    }
    for (name, target) in
        [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")]
    {
        let link = Path::new("/dev").join(name);
        std::os::unix::fs::symlink(target, &link)
            .with_context(|| format!("make the link {}", link.display()))?;
    }
    Ok(())
}

fn attach(kind: &str, place: &str, flags: MsFlags, options: &str) -> Result<()> {
    let options = Some(options).filter(|options| !options.is_empty());
    mount(Some(kind), place, Some(kind), flags, options)
        .with_context(|| format!("mount {kind} on {place}"))
}

/// Sets the loopback interface up: RTM_NEWLINK of rtnetlink(7) for the first interface there is.
fn loopback_up() -> Result<()> {
    const LENGTH: u32 = 32;
    const NEW_LINK: u16 = 16;
    const REQUEST_ACKNOWLEDGED: u16 = 0x5;
    const INDEX: i32 = 1;
    const UP: u32 = 1;
    let head =
        [&LENGTH.to_ne_bytes()[..], &NEW_LINK.to_ne_bytes(), &REQUEST_ACKNOWLEDGED.to_ne_bytes()];
    let link = [&INDEX.to_ne_bytes()[..], &UP.to_ne_bytes(), &UP.to_ne_bytes()];
    // Behind the head its number and port; before the link its family and kind: zeros.
    let message = [&head.concat()[..], &[0; 8], &[0; 4], &link.concat()].concat();
    let (family, protocol) = (AddressFamily::Netlink, SockProtocol::NetlinkRoute);
    let socket = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol);
    let socket = socket.context("open rtnetlink")?;
    let fd = socket.as_raw_fd();
    send(fd, &message, MsgFlags::empty()).context("set lo up")?;
    let mut answer = [0; 64];
    recv(fd, &mut answer, MsgFlags::empty()).context("set lo up")?;
    // The errno follows the head, negative; zero is the acknowledgement.
    let errno = answer.get(16..20).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    match errno {
        Some(0) => Ok(()),
        errno => Err(Error::other(format!("set lo up: errno {}", -errno.unwrap_or(-1)))),
    }
}
