//! The standard streams: files of the shim's, or a terminal of the container's.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::{
    errno::Errno,
    fcntl::{OFlag, openat},
    sys::{
        stat::{Mode, SFlag, fstat, major, minor},
        statfs::fstatfs,
    },
    unistd::{Uid, fchown},
};

use super::{Done, Executor, Fault, In, SOCKET, root, word};
use crate::engine::{
    report::Report,
    step::Part,
    sys::{self, Reach, Resolve},
    wire::Slot,
};

const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;
/// The number of `ptmx` (Documentation/admin-guide/devices.txt).
const PTMX: (u64, u64) = (5, 2);
/// And of `null`.
const NULL: (u64, u64) = (1, 3);

impl Executor<'_> {
    pub(super) fn place_streams(&self, stdin: Slot, stdout: Slot, stderr: Slot) -> Done {
        // A file may stand at a number that is about to be overwritten.
        let lifted = |slot| -> Done<OwnedFd> { Ok(sys::lift(self.file(slot)?)?) };
        let streams = [lifted(stdin)?, lifted(stdout)?, lifted(stderr)?];
        let mut nulls = [false; 3];
        for (null, stream) in nulls.iter_mut().zip(&streams) {
            *null = is_null(stream)?;
        }
        let own = if nulls.contains(&true) { own_null()? } else { None };
        let chosen = [0, 1, 2].map(|index| match &own {
            Some(own) if nulls[index] => own,
            _ => &streams[index],
        });
        place_all(&chosen)
    }

    pub(super) fn open_terminal(&self, uid: u64, height: u64, width: u64, console: bool) -> Done {
        let master = open_master()?;
        sys::unlock_terminal(master.as_fd())?;
        // By the master itself: a path could lead to another terminal by now.
        let slave = sys::open_terminal_peer(master.as_fd())?;
        let uid = Uid::from_raw(word(uid)?);
        match fchown(&slave, Some(uid), None) {
            // An id that this user namespace doesn't map, or a filesystem that keeps no owners:
            // the terminal works all the same.
            Ok(()) | Err(Errno::EINVAL | Errno::EPERM | Errno::EROFS) => {}
            Err(errno) => return Err(Fault { part: Part::Owner, number: errno as i32 }),
        }
        let size = |side| u16::try_from(side).map_err(|_| Fault::from(Errno::ERANGE));
        if height != 0 || width != 0 {
            sys::resize_terminal(master.as_fd(), size(height)?, size(width)?)?;
        }
        if console {
            bind_console(slave.as_fd())?;
        }
        sys::send(self.file(SOCKET)?, &Report::Terminal.bytes(), &[master.as_fd()])
            .part(Part::Report)?;
        sys::take_terminal(slave.as_fd())?;
        let slave = sys::lift(slave.as_fd())?;
        place_all(&[&slave, &slave, &slave])
    }
}

/// The container's `/dev/null`, to stand for the host's, whose mode and owner its root could change
/// through a descriptor. Where the container has none, a stream stays as it is.
fn own_null() -> Done<Option<OwnedFd>> {
    let container = root_directory()?;
    // Looked at before it is opened: opening something else could have consequences.
    match open_in_container(&container, c"dev/null", libc::O_PATH) {
        Ok(found) if is_null(&found)? => {}
        _ => return Ok(None),
    }
    match open_in_container(&container, c"dev/null", libc::O_RDWR | libc::O_NOCTTY) {
        Ok(own) if is_null(&own)? => Ok(Some(own)),
        _ => Ok(None),
    }
}

fn is_null(file: &OwnedFd) -> Done<bool> {
    let found = fstat(file).part(Part::Verify)?;
    let kind = SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT;
    Ok(kind == SFlag::S_IFCHR && (major(found.st_rdev), minor(found.st_rdev)) == NULL)
}

fn place_all(streams: &[impl AsFd; 3]) -> Done {
    for (number, stream) in (0..).zip(streams) {
        sys::place(stream.as_fd(), number)?;
    }
    Ok(())
}

/// Opens the multiplexer of the container's devpts, and makes sure that it is one.
fn open_master() -> Done<OwnedFd> {
    let container = root_directory()?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_NONBLOCK;
    let master = match open_in_container(&container, c"dev/pts/ptmx", flags) {
        Err(Errno::ENOENT) => open_in_container(&container, c"dev/ptmx", flags),
        master => master,
    }
    .part(Part::Open)?;
    let number = fstat(&master).part(Part::Verify)?.st_rdev;
    let magic = fstatfs(&master).part(Part::Verify)?.filesystem_type().0;
    if (major(number), minor(number)) != PTMX || magic != DEVPTS_SUPER_MAGIC {
        return Err(Fault { part: Part::Verify, number: Errno::ENODEV as i32 });
    }
    Ok(master)
}

/// Shows the terminal as the container's `/dev/console`.
fn bind_console(slave: BorrowedFd<'_>) -> Done {
    let container = root_directory()?;
    let (directory, name) = (root::directory(container.as_fd(), b"dev")?, c"console");
    let create = OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    // O_PATH can't create; what is there already is fine as a mount point if it is no symlink.
    match openat(&directory, name, create | OFlag::O_EXCL, Mode::from_bits_truncate(0o666)) {
        Ok(_) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(Fault { part: Part::MakeTarget, number: errno as i32 }),
    }
    let flags = libc::O_PATH | libc::O_NOFOLLOW;
    let target = sys::open_in(directory.as_fd(), name, flags, 0, Resolve::IN_ROOT_PLAIN)
        .part(Part::Target)?;
    let console = sys::clone_tree(slave, c"", Reach::Top).part(Part::Make)?;
    sys::attach(console.as_fd(), target.as_fd()).part(Part::Attach)
}

fn root_directory() -> Done<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    nix::fcntl::open(c"/", flags, Mode::empty()).part(Part::Target)
}

fn open_in_container(
    container: &OwnedFd,
    path: &std::ffi::CStr,
    flags: i32,
) -> sys::Result<OwnedFd> {
    sys::open_in(container.as_fd(), path, flags, 0, Resolve::IN_ROOT)
}
