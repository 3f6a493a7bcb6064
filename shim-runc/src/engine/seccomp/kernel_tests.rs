//! Filters in this kernel. A filter holds for the thread that loads it, so a thread of its own is
//! all that a test needs.

use std::{io, thread};

use serde_json::json;

use super::{Filter, Instruction, compile};

#[repr(C)]
struct Program {
    length: u16,
    instructions: *const Instruction,
}

/// Loads a filter into the calling thread, for good.
fn load(filter: &Filter) -> io::Result<()> {
    const SET_MODE_FILTER: libc::c_uint = 1;
    // SAFETY: this option takes a number, and the others have to be zero.
    let done = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(done, 0);
    let program = Program {
        length: u16::try_from(filter.program.len()).unwrap(),
        instructions: filter.program.as_ptr(),
    };
    // SAFETY: `program` is a live sock_fprog that points to as many instructions as it says.
    let done = unsafe {
        libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, filter.flags, &raw const program)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes a call with one argument; tells its error.
fn errno(number: i64, argument: u64) -> i32 {
    // SAFETY: the calls of these tests take numbers or nothing.
    let done = unsafe { libc::syscall(number, argument, 0, 0) };
    if done < 0 { io::Error::last_os_error().raw_os_error().unwrap() } else { 0 }
}

#[test]
fn the_kernel_takes_a_filter_and_follows_it() {
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_ARM"],
        "syscalls": [
            { "names": ["getppid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 99 },
            { "names": ["personality"], "action": "SCMP_ACT_ERRNO", "errnoRet": 98,
              "args": [{ "index": 0, "value": 0xffff_ffff_u64, "op": "SCMP_CMP_NE" }] },
        ]
    });
    let filter = compile(&serde_json::from_value(profile).unwrap()).unwrap();
    let thread = thread::spawn(move || {
        load(&filter).unwrap();
        assert_eq!(errno(libc::SYS_getppid, 0), 99);
        assert_eq!(errno(libc::SYS_personality, 0xffff_ffff), 0);
        assert_eq!(errno(libc::SYS_personality, 0x1_ffff_ffff), 98);
        assert_eq!(errno(libc::SYS_getpid, 0), 0);
    });
    thread.join().unwrap();
}

#[test]
fn an_allow_list_keeps_a_thread_alive_and_new_calls_out() {
    let profile = json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [{ "action": "SCMP_ACT_ALLOW", "names": [
            "brk", "clock_gettime", "exit", "futex", "getpid", "gettid", "madvise", "mmap",
            "mprotect", "munmap", "openat2", "rseq", "rt_sigprocmask", "sched_yield",
            "set_robust_list", "sigaltstack", "write",
        ] }]
    });
    let filter = compile(&serde_json::from_value(profile).unwrap()).unwrap();
    let thread = thread::spawn(move || {
        load(&filter).unwrap();
        [errno(libc::SYS_getpid, 0), errno(libc::SYS_getppid, 0), errno(600, 0)]
    });
    assert_eq!(thread.join().unwrap(), [0, libc::EPERM, libc::ENOSYS]);
}
