//! bpf(2), as far as programs that decide on a cgroup's devices need it: one safe function a
//! command, no policy.

use std::{
    ffi::CStr,
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

/// One instruction, `struct bpf_insn`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Instruction {
    pub(super) code: u8,
    /// The destination in the low half, the source in the high one.
    pub(super) registers: u8,
    pub(super) offset: i16,
    pub(super) immediate: i32,
}

const LICENSE: &CStr = c"Apache-2.0";

/// `BPF_PROG_TYPE_CGROUP_DEVICE`.
const TYPE_CGROUP_DEVICE: u32 = 15;
/// `BPF_CGROUP_DEVICE`.
const ATTACH_DEVICE: u32 = 6;
/// `BPF_F_ALLOW_MULTI`: programs of cgroups above and below count too.
const ALLOW_MULTI: u32 = 1 << 1;
/// `BPF_F_REPLACE`: in the place of another program, at once.
const REPLACE: u32 = 1 << 2;

/// More programs than this on one cgroup are nobody's doing but an attacker's.
const MAX_PROGRAMS: u32 = 64;

/// The part of `union bpf_attr` that one command reads.
trait Attributes {
    /// The command, `enum bpf_cmd`.
    const COMMAND: i64;
}

#[repr(C)]
struct Load {
    program_type: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
}

impl Attributes for Load {
    const COMMAND: i64 = 5;
}

#[repr(C)]
struct Attach {
    cgroup: i32,
    program: i32,
    attach_type: u32,
    flags: u32,
    replaced: i32,
}

impl Attributes for Attach {
    const COMMAND: i64 = 8;
}

#[repr(C)]
struct Detach {
    cgroup: i32,
    program: i32,
    attach_type: u32,
    flags: u32,
}

impl Attributes for Detach {
    const COMMAND: i64 = 9;
}

#[repr(C)]
struct OpenById {
    id: u32,
}

impl Attributes for OpenById {
    const COMMAND: i64 = 13;
}

#[repr(C)]
struct Query {
    cgroup: i32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    /// The kernel's structure is a multiple of eight bytes long.
    padding: u32,
}

impl Attributes for Query {
    const COMMAND: i64 = 16;
}

/// Loads a program; the kernel checks it.
pub(super) fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    let mut attributes = Load {
        program_type: TYPE_CGROUP_DEVICE,
        count: u32::try_from(program.len())
            .map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?,
        instructions: program.as_ptr() as u64,
        license: LICENSE.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
    };
    // A signal cuts the check short with EAGAIN; the bound is libbpf's, with room.
    for _ in 0..16 {
        match call_for_fd(&mut attributes) {
            Err(err) if err.raw_os_error() == Some(libc::EAGAIN) => {}
            done => return done,
        }
    }
    Err(io::Error::from_raw_os_error(libc::EAGAIN))
}

/// Attaches a program to a cgroup, in the place of another one if given.
pub(super) fn attach(
    cgroup: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    replaced: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let mut attributes = Attach {
        cgroup: cgroup.as_raw_fd(),
        program: program.as_raw_fd(),
        attach_type: ATTACH_DEVICE,
        flags: if replaced.is_some() { ALLOW_MULTI | REPLACE } else { ALLOW_MULTI },
        replaced: replaced.map_or(0, |fd| fd.as_raw_fd()),
    };
    call(&mut attributes).map(drop)
}

/// Takes a program off a cgroup.
pub(super) fn detach(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = Detach {
        cgroup: cgroup.as_raw_fd(),
        program: program.as_raw_fd(),
        attach_type: ATTACH_DEVICE,
        flags: 0,
    };
    call(&mut attributes).map(drop)
}

/// Opens the programs on a cgroup itself, not those on the cgroups above.
pub(super) fn attached(cgroup: BorrowedFd<'_>) -> io::Result<Vec<OwnedFd>> {
    let mut ids = [0_u32; MAX_PROGRAMS as usize];
    let mut attributes = Query {
        cgroup: cgroup.as_raw_fd(),
        attach_type: ATTACH_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        ids: ids.as_mut_ptr() as u64,
        count: MAX_PROGRAMS,
        padding: 0,
    };
    call(&mut attributes)?;
    let count = attributes.count.min(MAX_PROGRAMS) as usize;
    ids[..count].iter().map(|&id| call_for_fd(&mut OpenById { id })).collect()
}

fn call_for_fd<A: Attributes>(attributes: &mut A) -> io::Result<OwnedFd> {
    let fd = i32::try_from(call(attributes)?).expect("a file descriptor is an int");
    // SAFETY: the kernel has just made this descriptor for us alone; bpf(2) marks it close-on-exec.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn call<A: Attributes>(attributes: &mut A) -> io::Result<i64> {
    let size = size_of::<A>();
    let pointer: *mut A = attributes;
    // SAFETY: `pointer` is a live structure of `size` bytes, laid out as the command reads it. The
    // addresses in it, of instructions, licence or ids, are of memory that its maker holds on to
    // for the length of the call, of the length it gives.
    let done = unsafe { libc::syscall(libc::SYS_bpf, A::COMMAND, pointer, size) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(done) }
}
