//! Seccomp: what a filter answers in the kernel's place.

use serde_json::{Value, json};

use super::super::bundle::Bundle;

const CALLS: [&str; 12] = [
    "call:mkdir",
    "call:mkdirat",
    "call:chmod",
    "call:chroot",
    "call:openat2",
    "call:pidfd_open",
    "call:getpgid",
    "call:getpgid 7",
    "call:unshare uts",
    "call:unshare fs",
    "call:memfd_create",
    "call:link",
];

pub(super) fn bundles() -> Vec<Bundle> {
    let deny = |names: &[&str]| json!([{ "names": names, "action": "SCMP_ACT_ERRNO" }]);
    let one = |more: Value| {
        let mut rule = json!({ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO" });
        rule.as_object_mut().expect("it is one").extend(more.as_object().expect("one").clone());
        json!([rule])
    };
    let args = |index: u32, value: u64, op: &str| {
        json!([{ "names": ["getpgid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 40,
            "args": [{ "index": index, "value": value, "op": op }] }])
    };
    let mut all = vec![
        filter("errno", deny(&["mkdir", "chmod"])),
        filter("errno-number", one(json!({ "errnoRet": 95 }))),
        filter("errno-zero", one(json!({ "errnoRet": 0 }))),
        filter("errno-too-large", one(json!({ "errnoRet": 5000 }))),
        filter("log", one(json!({ "action": "SCMP_ACT_LOG" }))),
        filter("trap", one(json!({ "action": "SCMP_ACT_TRAP" }))),
        filter("trace", one(json!({ "action": "SCMP_ACT_TRACE", "errnoRet": 12 }))),
        filter("kill", one(json!({ "action": "SCMP_ACT_KILL" }))),
        filter("kill-process", one(json!({ "action": "SCMP_ACT_KILL_PROCESS" }))),
        filter("unknown-call", deny(&["mkdir", "no_such_call"])),
        filter("unknown-action", one(json!({ "action": "SCMP_ACT_NO_SUCH" }))),
        filter("no-calls", json!([])),
        filter(
            "same-call-twice",
            json!([
            { "names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 11 },
            { "names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 12 }]),
        ),
        filter("argument-equal", args(0, 7, "SCMP_CMP_EQ")),
        filter("argument-not-equal", args(0, 7, "SCMP_CMP_NE")),
        filter("argument-less", args(0, 7, "SCMP_CMP_LT")),
        filter("argument-at-least", args(0, 7, "SCMP_CMP_GE")),
        filter("argument-greater", args(0, 6, "SCMP_CMP_GT")),
        filter("argument-index-too-large", args(6, 7, "SCMP_CMP_EQ")),
        filter(
            "argument-masked",
            json!([{ "names": ["getpgid"], "action": "SCMP_ACT_ERRNO",
            "args": [{ "index": 0, "value": 6, "valueTwo": 6, "op": "SCMP_CMP_MASKED_EQ" }] }]),
        ),
        filter(
            "arguments-both",
            json!([{ "names": ["getpgid"], "action": "SCMP_ACT_ERRNO",
            "args": [{ "index": 0, "value": 5, "op": "SCMP_CMP_GT" },
                { "index": 0, "value": 9, "op": "SCMP_CMP_LT" }] }]),
        ),
        filter("without-no-new-privileges", deny(&["mkdir"]))
            .process(json!({ "noNewPrivileges": false })),
        filter("as-user", deny(&["mkdir"])).process(json!({
            "user": { "uid": 1000, "gid": 1000 }, "noNewPrivileges": false })),
    ];
    all.extend(defaults());
    all
}

fn filter(name: &str, calls: Value) -> Bundle {
    Bundle::new(&format!("seccomp.{name}"), &CALLS).linux(json!({ "seccomp": {
        "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": calls } }))
}

fn defaults() -> Vec<Bundle> {
    let allowed = |name: &str, seccomp: Value| {
        let mut whole = json!({ "defaultAction": "SCMP_ACT_ERRNO",
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
            "syscalls": [{ "names": ALLOWED.as_slice(), "action": "SCMP_ACT_ALLOW" }] });
        whole.as_object_mut().expect("one").extend(seccomp.as_object().expect("one").clone());
        Bundle::new(&format!("seccomp.{name}"), &CALLS).linux(json!({ "seccomp": whole }))
    };
    vec![
        allowed("default-errno", json!({})),
        allowed("default-errno-number", json!({ "defaultErrnoRet": 38 })),
        allowed("default-without-architectures", json!({ "architectures": [] })),
        allowed("default-kills", json!({ "defaultAction": "SCMP_ACT_KILL_PROCESS" })),
        allowed("flag-log", json!({ "flags": ["SECCOMP_FILTER_FLAG_LOG"] })),
        allowed("flag-tsync", json!({ "flags": ["SECCOMP_FILTER_FLAG_TSYNC"] })),
        allowed("flag-no-mitigation", json!({ "flags": ["SECCOMP_FILTER_FLAG_SPEC_ALLOW"] })),
        allowed("flag-unknown", json!({ "flags": ["SECCOMP_FILTER_FLAG_NO_SUCH"] })),
        allowed("architecture-unknown", json!({ "architectures": ["SCMP_ARCH_NO_SUCH"] })),
    ]
}

/// What every runtime's own last steps and the probe need, and nothing as new as openat2(2).
const ALLOWED: [&str; 78] = [
    "access",
    "arch_prctl",
    "brk",
    "capget",
    "capset",
    "chdir",
    "clone",
    "clone3",
    "close",
    "close_range",
    "connect",
    "dup",
    "dup2",
    "dup3",
    "epoll_create1",
    "epoll_ctl",
    "epoll_pwait",
    "execve",
    "execveat",
    "exit",
    "exit_group",
    "faccessat",
    "faccessat2",
    "fchdir",
    "fcntl",
    "fstat",
    "fstatfs",
    "futex",
    "getcwd",
    "getdents64",
    "getegid",
    "geteuid",
    "getgid",
    "getgroups",
    "getpid",
    "getppid",
    "getrandom",
    "getresgid",
    "getresuid",
    "gettid",
    "getuid",
    "ioctl",
    "lseek",
    "lstat",
    "madvise",
    "mmap",
    "mprotect",
    "munmap",
    "nanosleep",
    "newfstatat",
    "open",
    "openat",
    "pipe2",
    "poll",
    "ppoll",
    "prctl",
    "pread64",
    "prlimit64",
    "read",
    "readlink",
    "readlinkat",
    "rseq",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sched_getaffinity",
    "seccomp",
    "sendmsg",
    "set_robust_list",
    "set_tid_address",
    "setresuid",
    "sigaltstack",
    "stat",
    "statfs",
    "tgkill",
    "uname",
    "wait4",
    "write",
];
