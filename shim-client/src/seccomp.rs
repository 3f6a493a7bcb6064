//! The seccomp profile of containers that have nothing special to do: a table of what they may call.
//!
//! What is not listed fails with EPERM, so what is new in a kernel is closed until it is looked at. Left
//! out are calls that change the host (clock, modules, swap, kexec), that reach into what no namespace
//! holds (keys, bpf, perf), that look into other processes, and those whose bugs have led out of
//! containers before (userfaultfd, io_uring, user namespaces). A capability brings the calls with it
//! that mean nothing without.

use serde_json::{Value, json};

/// What every container may call, by theme.
const ALLOWED: [&str; 9] = [
    // files and directories
    "access cachestat chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3 \
     faccessat faccessat2 fadvise64 fadvise64_64 arm_fadvise64_64 fallocate fchdir fchmod fchmodat \
     fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock \
     fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 \
     futimesat getcwd getdents getdents64 getxattr getxattrat ioctl lchown lchown32 lgetxattr link \
     linkat listxattr listxattrat llistxattr lremovexattr lseek _llseek lsetxattr lstat lstat64 mkdir \
     mkdirat mknod mknodat name_to_handle_at newfstatat open openat openat2 pread64 preadv preadv2 \
     pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv removexattr removexattrat \
     rename renameat renameat2 rmdir sendfile sendfile64 setxattr setxattrat splice stat stat64 statfs \
     statfs64 statx symlink symlinkat sync sync_file_range sync_file_range2 arm_sync_file_range syncfs \
     tee truncate truncate64 umask unlink unlinkat utime utimensat utimensat_time64 utimes vmsplice \
     write writev",
    // watching files, waiting for them
    "epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait \
     epoll_wait_old eventfd eventfd2 fanotify_mark inotify_add_watch inotify_init inotify_init1 \
     inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup \
     io_submit pipe pipe2 poll ppoll ppoll_time64 pselect6 pselect6_time64 select _newselect",
    // memory
    "brk madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall \
     mmap mmap2 mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free \
     pkey_mprotect process_mrelease remap_file_pages",
    // processes and threads
    "arch_prctl capget capset execve execveat exit exit_group fork get_robust_list get_thread_area \
     getcpu getpgid getpgrp getpid getppid getpriority getrlimit getrusage getsid gettid ioprio_get \
     ioprio_set landlock_add_rule landlock_create_ruleset landlock_restrict_self modify_ldt nice \
     pidfd_open pidfd_send_signal prctl prlimit64 restart_syscall rseq sched_get_priority_max \
     sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler \
     sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr \
     sched_setparam sched_setscheduler sched_yield seccomp set_robust_list set_thread_area \
     set_tid_address setpgid setpriority setrlimit setsid sysinfo times ugetrlimit uname vfork wait4 \
     waitid waitpid breakpoint cacheflush set_tls",
    // ids
    "getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getresgid getresgid32 \
     getresuid getresuid32 getuid getuid32 setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 \
     setgroups setgroups32 setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid \
     setreuid32 setuid setuid32",
    // signals
    "kill pause rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend \
     rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaction sigaltstack signal signalfd \
     signalfd4 sigpending sigprocmask sigreturn sigsuspend tgkill tkill",
    // time, read and waited for: to set it takes a capability, which the kernel asks for
    "adjtimex alarm clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime \
     clock_gettime64 clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday nanosleep setitimer \
     time timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime \
     timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime \
     timerfd_settime64",
    // between processes
    "futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake ipc mq_getsetattr mq_notify \
     mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink msgctl \
     msgget msgrcv msgsnd semctl semget semop semtimedop semtimedop_time64 shmat shmctl shmdt shmget \
     getrandom",
    // sockets, but for their making
    "accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg \
     recvmmsg_time64 recvmsg send sendmmsg sendmsg sendto setsockopt shutdown socketpair",
];

/// What a capability brings with it.
const WITH: [(&str, &str); 14] = [
    (
        "CAP_SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick listmount lookup_dcookie mount \
         mount_setattr move_mount open_tree perf_event_open pivot_root quotactl quotactl_fd \
         setdomainname sethostname setns statmount syslog umount umount2 unshare",
    ),
    ("CAP_BPF", "bpf"),
    ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    ("CAP_PERFMON", "perf_event_open"),
    ("CAP_SYS_BOOT", "reboot"),
    ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_SYS_MODULE", "delete_module finit_module init_module"),
    ("CAP_SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("CAP_SYS_PACCT", "acct"),
    (
        "CAP_SYS_PTRACE",
        "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace",
    ),
    ("CAP_SYS_RAWIO", "ioperm iopl"),
    ("CAP_SYS_TIME", "clock_settime clock_settime64 settimeofday stime"),
    ("CAP_SYS_TTY_CONFIG", "vhangup"),
    ("CAP_SYSLOG", "syslog"),
];

/// Flags of clone(2) that make namespaces, all kinds.
const NEW_NAMESPACES: u64 = 0x7e02_0000;

/// Execution domains that change nothing for others: Linux, of 32 bits, the same with the name of an
/// old release, and the question which it is (personality(2)).
const DOMAINS: [u64; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Families of sockets that no network namespace holds: the kernel's own cryptography, and virtual
/// machines (linux/socket.h).
const AF_ALG: u64 = 38;
const AF_VSOCK: u64 = 40;

/// The profile of a container with these capabilities, `linux.seccomp` of a spec.
pub(crate) fn profile(capabilities: &[&str]) -> Value {
    let words = |texts: &[&'static str]| -> Vec<&'static str> {
        texts.iter().flat_map(|text| text.split_whitespace()).collect()
    };
    let with: Vec<_> = WITH.iter().filter(|(name, _)| capabilities.contains(name)).collect();
    let mut rules = vec![
        json!({ "names": words(&ALLOWED), "action": "SCMP_ACT_ALLOW" }),
        one("socket", "SCMP_CMP_LT", AF_ALG),
        one("socket", "SCMP_CMP_EQ", AF_ALG + 1),
        one("socket", "SCMP_CMP_GT", AF_VSOCK),
    ];
    rules.extend(DOMAINS.map(|domain| one("personality", "SCMP_CMP_EQ", domain)));
    if !capabilities.contains(&"CAP_SYS_ADMIN") {
        // Masked, so the value to compare with is the second one: none of them.
        rules.push(one("clone", "SCMP_CMP_MASKED_EQ", NEW_NAMESPACES));
        // Its flags stand behind a pointer, where no filter can look; a libc without it uses clone.
        rules.push(json!({ "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38 }));
    }
    let brought: Vec<_> = with.iter().map(|(_, calls)| *calls).collect();
    rules.push(json!({ "names": words(&brought), "action": "SCMP_ACT_ALLOW" }));
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": architectures(),
        "syscalls": rules,
    })
}

/// A call that is allowed when its first argument is so.
fn one(name: &str, test: &str, value: u64) -> Value {
    json!({ "names": [name], "action": "SCMP_ACT_ALLOW",
        "args": [{ "index": 0, "value": value, "valueTwo": 0, "op": test }] })
}

/// The machine's ABIs.
fn architectures() -> Value {
    if cfg!(target_arch = "aarch64") {
        json!(["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"])
    } else {
        json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"])
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs};

    use super::*;

    fn names(profile: &Value) -> BTreeSet<&str> {
        let rules = profile["syscalls"].as_array().unwrap();
        let names = rules.iter().flat_map(|rule| rule["names"].as_array().unwrap());
        names.map(|name| name.as_str().unwrap()).collect()
    }

    #[test]
    fn every_name_is_one_of_the_kernels() {
        let path =
            concat!(env!("CARGO_MANIFEST_DIR"), "/../shim-runc/src/engine/seccomp/syscalls.tbl");
        let table = fs::read_to_string(path).unwrap();
        let known: BTreeSet<_> = table.lines().filter_map(|line| line.split(' ').next()).collect();
        let all: Vec<_> = WITH.iter().map(|(name, _)| *name).collect();
        let profile = profile(&all);
        let unknown: Vec<_> = names(&profile).difference(&known).copied().collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }

    #[test]
    fn nothing_is_listed_twice() {
        let mut seen = BTreeSet::new();
        for name in ALLOWED.iter().flat_map(|text| text.split_whitespace()) {
            assert!(seen.insert(name), "{name}");
        }
        for name in WITH.iter().flat_map(|(_, text)| text.split_whitespace()) {
            assert!(!seen.contains(name), "{name} needs no capability");
        }
    }

    #[test]
    fn a_capability_brings_its_calls() {
        let (none, chroot) = (profile(&[]), profile(&["CAP_SYS_CHROOT"]));
        assert!(!names(&none).contains("chroot") && names(&chroot).contains("chroot"));
        let admin = profile(&["CAP_SYS_ADMIN"]);
        assert!(names(&admin).contains("mount") && !names(&none).contains("mount"));
        let refused = |profile: &Value| profile.to_string().contains("\"errnoRet\":38");
        assert!(refused(&none) && !refused(&admin));
    }
}
