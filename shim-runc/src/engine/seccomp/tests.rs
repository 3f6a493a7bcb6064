//! Filters against a plain reading of their profiles.

use oci_spec::runtime::LinuxSeccomp;
use serde_json::{Value, json};

use super::{
    abi::{Abi, Table},
    interpret::{Call, check, run},
    naive::Reading,
    *,
};
use crate::engine::dice::Dice;

const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 0x0005_0001;
const ENOSYS: u32 = 0x0005_0026;
const KILL: u32 = 0;

fn spec(profile: Value) -> LinuxSeccomp {
    serde_json::from_value(profile).unwrap()
}

fn compiled(machine: Machine, spec: &LinuxSeccomp) -> Vec<Instruction> {
    let filter = compile_for(machine, spec).unwrap();
    check(&filter.program);
    filter.program
}

fn answer(program: &[Instruction], abi: Abi, number: u32, args: [u64; 6]) -> u32 {
    run(program, &Call { arch: abi.audit(), number, args }).0
}

/// In the manner of containerd's default profile.
fn default_profile() -> LinuxSeccomp {
    let allowed = "accept accept4 access arch_prctl bind brk capget capset chdir chmod clone3 \
        close close_range connect dup dup2 dup3 epoll_create1 epoll_ctl epoll_pwait \
        epoll_pwait2 eventfd2 execve execveat exit exit_group faccessat faccessat2 \
        fchdir fchmod fchown fcntl fcntl64 fstat fstat64 fstatfs ftruncate futex \
        futex_waitv getcwd getdents64 getegid geteuid getgid getpid getppid getrandom \
        getrlimit getsockname getsockopt gettid getuid ioctl kill lseek madvise \
        memfd_create mkdir mkdirat mmap mmap2 mprotect munmap nanosleep newfstatat \
        open openat openat2 pipe2 poll ppoll prctl pread64 prlimit64 pselect6 pwrite64 \
        read readlink readlinkat readv recvfrom recvmsg rename renameat2 \
        restart_syscall rseq rt_sigaction rt_sigprocmask rt_sigreturn sched_yield \
        select sendmsg sendto set_robust_list set_tid_address setsockopt shutdown \
        sigaltstack socketcall socketpair stat statx sysinfo tgkill uname unlink \
        unlinkat utimensat wait4 waitid write writev breakpoint cacheflush set_tls \
        from_the_future";
    let allowed: Vec<_> = allowed.split_whitespace().collect();
    let persona = |value: u64| {
        json!({ "names": ["personality"], "action": "SCMP_ACT_ALLOW",
                "args": [{ "index": 0, "value": value, "op": "SCMP_CMP_EQ" }] })
    };
    spec(json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_ARM"],
        "syscalls": [
            { "names": allowed, "action": "SCMP_ACT_ALLOW" },
            { "names": ["socket"], "action": "SCMP_ACT_ALLOW",
              "args": [{ "index": 0, "value": 40, "op": "SCMP_CMP_NE" }] },
            persona(0), persona(8), persona(0x20000), persona(0xffff_ffff),
            { "names": ["clone"], "action": "SCMP_ACT_ALLOW",
              "args": [{ "index": 0, "op": "SCMP_CMP_MASKED_EQ",
                         "value": 0x7e02_0000, "valueTwo": 0 }] },
            { "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38 },
        ]
    }))
}

/// Compares a filter with its profile for every number near those in use.
fn compare(machine: Machine, spec: &LinuxSeccomp, args: &[[u64; 6]]) {
    const X32: u32 = 1 << 30;
    let table = Table::read();
    let program = compiled(machine, spec);
    // Where the numbers of an ABI start and where they can't be any more.
    let abis: &[(Abi, u32, u32)] = match machine {
        Machine::X86_64 => {
            &[(Abi::X86_64, 0, X32), (Abi::X32, X32, u32::MAX), (Abi::I386, 0, u32::MAX)]
        }
        Machine::Aarch64 => &[(Abi::Aarch64, 0, u32::MAX), (Abi::Arm, 0, u32::MAX)],
    };
    for &(abi, start, end) in abis {
        let reading = Reading::of(spec, &table, abi);
        let near = |number: u32| (0..520).map(move |step| number + step);
        let all = near(0).chain(near(0xf_0000)).chain([end - start - 2, end - start - 1]);
        for number in all {
            if abi == Abi::I386 && matches!(number, 102 | 117) {
                continue;
            }
            for args in args {
                assert_eq!(
                    answer(&program, abi, start + number, *args),
                    reading.read(number, *args),
                    "{abi:?} {number:#x} {args:x?}"
                );
            }
        }
    }
}

#[test]
fn a_profile_like_containerds_means_what_it_says() {
    let args = [
        [0; 6],
        [40, 0, 0, 0, 0, 0],
        [8, 9, 9, 9, 9, 9],
        [0x1_0000_0028, 0, 0, 0, 0, 0],
        [0x2000_0000, 0, 0, 0, 0, 0],
        [0xffff_ffff; 6],
        [u64::MAX; 6],
    ];
    for machine in [Machine::X86_64, Machine::Aarch64] {
        compare(machine, &default_profile(), &args);
    }
}

#[test]
fn a_search_is_short() {
    let program = compiled(Machine::X86_64, &default_profile());
    let steps = |number| run(&program, &Call { arch: Abi::X86_64.audit(), number, args: [0; 6] }).1;
    let longest = (0..600).map(steps).max().unwrap();
    assert!(longest <= 20, "{longest} instructions");
    assert!(program.len() < 600, "{} instructions", program.len());
}

#[test]
fn calls_are_told_apart_by_name_abi_and_argument() {
    let program = compiled(Machine::X86_64, &default_profile());
    let native = |number, first| answer(&program, Abi::X86_64, number, [first, 0, 0, 0, 0, 0]);
    assert_eq!(native(1, 0), ALLOW, "write");
    assert_eq!(native(165, 0), EPERM, "mount");
    assert_eq!(native(41, 2), ALLOW, "socket(AF_INET)");
    assert_eq!(native(41, 40), EPERM, "socket(AF_VSOCK)");
    assert_eq!(native(135, 8), ALLOW, "personality(ADDR_NO_RANDOMIZE)");
    assert_eq!(native(135, 9), EPERM);
    assert_eq!(native(56, 17), ALLOW, "clone(SIGCHLD)");
    assert_eq!(native(56, 0x1000_0000), EPERM, "clone(CLONE_NEWUSER)");
    // Allowed in the long list first: the rule that comes later says nothing any more.
    assert_eq!(native(435, 0), ALLOW, "clone3");
    // What is newer than close_range and its like, which the profile knows.
    assert_eq!(native(449, 0), ALLOW, "futex_waitv");
    assert_eq!(native(450, 0), ENOSYS);
    assert_eq!(native(u32::MAX, 0), EPERM, "left out by a tracer");
    let other = |abi: Abi, number| answer(&program, abi, number, [0; 6]);
    assert_eq!(other(Abi::I386, 4), ALLOW, "write on i386");
    assert_eq!(other(Abi::X86_64, 0x4000_0001), ALLOW, "write on x32");
    assert_eq!(other(Abi::X86_64, 0x4000_0202), ALLOW, "ioctl on x32");
    assert_eq!(other(Abi::Aarch64, 64), KILL, "no ABI of this machine");
}

#[test]
fn abis_that_are_not_listed_kill() {
    let profile = json!({ "defaultAction": "SCMP_ACT_ALLOW" });
    let program = compiled(Machine::X86_64, &spec(profile));
    assert_eq!(answer(&program, Abi::X86_64, 1, [0; 6]), ALLOW);
    assert_eq!(answer(&program, Abi::I386, 4, [0; 6]), KILL);
    assert_eq!(answer(&program, Abi::X86_64, 0x4000_0001, [0; 6]), KILL);
    assert_eq!(answer(&program, Abi::X86_64, u32::MAX, [0; 6]), ALLOW);
}

#[test]
fn every_test_of_an_argument_is_exact_in_both_halves() {
    let edges = [
        0,
        1,
        0x7fff_ffff,
        0xffff_fffe,
        0xffff_ffff,
        0x1_0000_0000,
        0x1_0000_0001,
        0xffff_ffff_0000_0000,
        u64::MAX - 1,
        u64::MAX,
    ];
    let tests = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"];
    for (index, test) in (0..6).cycle().zip(tests) {
        for value in edges {
            let profile = json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"],
                "syscalls": [{ "names": ["ioctl"], "action": "SCMP_ACT_ERRNO", "errnoRet": 7,
                    "args": [{ "index": index, "value": value, "valueTwo": value & 0xf_0000_0003,
                               "op": format!("SCMP_CMP_{test}") }] }]
            });
            let spec = spec(profile);
            let program = compiled(Machine::X86_64, &spec);
            let table = Table::read();
            for (abi, start, number) in
                [(Abi::X86_64, 0, 16), (Abi::X32, 1 << 30, 514), (Abi::I386, 0, 54)]
            {
                let reading = Reading::of(&spec, &table, abi);
                for arg in edges {
                    let mut args = [5; 6];
                    args[index] = arg;
                    assert_eq!(
                        answer(&program, abi, start + number, args),
                        reading.read(number, args),
                        "{test} {value:#x}, {abi:?} {arg:#x}"
                    );
                }
            }
        }
    }
}

/// A value with something in one half or both.
fn value(dice: &mut Dice) -> u64 {
    match dice.roll(3) {
        0 => dice.roll(4),
        1 => dice.roll(4) << 32 | dice.roll(4),
        _ => u64::MAX - dice.roll(4),
    }
}

fn random_profile(dice: &mut Dice, rules: u64) -> LinuxSeccomp {
    let names: Vec<_> = include_str!("syscalls.tbl")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split(' ').next())
        // These two have their own tests, for the older ways on i386 lead to them.
        .filter(|name| !["socketcall", "ipc"].contains(name))
        .collect();
    let actions = ["ALLOW", "ERRNO", "KILL", "KILL_PROCESS", "TRAP", "TRACE", "LOG"];
    let ops = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"];
    let mut syscalls = Vec::new();
    for _ in 0..rules {
        let arg = |dice: &mut Dice| {
            json!({ "index": dice.roll(6), "value": value(dice), "valueTwo": value(dice),
                    "op": format!("SCMP_CMP_{}", dice.pick(&ops)) })
        };
        let args: Vec<_> = (0..dice.roll(4)).map(|_| arg(dice)).collect();
        let names: Vec<_> = (0..=dice.roll(3)).map(|_| dice.pick(&names)).collect();
        let action = format!("SCMP_ACT_{}", dice.pick(&actions));
        let errno = dice.roll(3);
        syscalls.push(json!({ "names": names, "action": action, "errnoRet": errno, "args": args }));
    }
    let listed = ["SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_ARM"];
    let listed: Vec<_> = listed.into_iter().filter(|_| dice.roll(3) > 0).collect();
    spec(json!({
        "defaultAction": format!("SCMP_ACT_{}", dice.pick(&actions)),
        "defaultErrnoRet": 1 + dice.roll(2),
        "architectures": listed,
        "syscalls": syscalls
    }))
}

#[test]
fn random_profiles_mean_what_they_say() {
    let mut dice = Dice(7);
    for round in 0..60 {
        let profile = random_profile(&mut dice, 1 + round);
        let args: Vec<_> = (0..4).map(|_| [0; 6].map(|_: u64| value(&mut dice))).collect();
        compare(Machine::X86_64, &profile, &args);
        compare(Machine::Aarch64, &profile, &args);
    }
}

#[test]
fn programs_may_be_as_long_as_the_kernel_takes() {
    let mut dice = Dice(11);
    let (mut longest, mut rules) = (0, 100);
    let err = loop {
        let profile = random_profile(&mut dice, rules);
        match compile_for(Machine::X86_64, &profile) {
            Ok(filter) if filter.program.len() > longest => {
                longest = filter.program.len();
                compare(Machine::X86_64, &profile, &[[0; 6], [3; 6], [0x3_0000_0002; 6]]);
            }
            Ok(_) => {}
            Err(err) => break err,
        }
        rules += 50;
    };
    assert!(longest > 2000, "{longest} instructions");
    assert_eq!(err.kind(), Kind::InvalidArgument);
    assert!(err.to_string().ends_with("the kernel takes 4096"), "{err}");
}

#[test]
fn far_targets_are_reached_by_long_jumps() {
    // Each of these calls has tests of its own, so that none shares them with another.
    let names = "read write open close stat fstat lstat poll lseek mmap mprotect munmap brk ioctl \
        access pipe select mremap msync mincore madvise shmget shmat shmctl dup dup2 pause alarm";
    let rule = |(index, name): (u64, &str)| {
        json!({ "names": [name], "action": "SCMP_ACT_ALLOW", "args": [
            { "index": 0, "value": index << 32 | 5, "op": "SCMP_CMP_GT" },
            { "index": 5, "value": index, "op": "SCMP_CMP_LE" }] })
    };
    let syscalls: Vec<_> = (0..).zip(names.split_whitespace()).map(rule).collect();
    let spec = spec(json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": syscalls }));
    let program = compiled(Machine::X86_64, &spec);
    assert!(program.iter().any(|instruction| instruction.code == 0x05), "a long jump");
    compare(Machine::X86_64, &spec, &[[0; 6], [6; 6], [9 << 32 | 6, 0, 0, 0, 0, 9], [u64::MAX; 6]]);
}

#[test]
fn older_ways_on_i386_follow_their_calls() {
    let operation = |program: &[Instruction], call, operation| {
        answer(program, Abi::I386, call, [operation, 0, 0, 0, 0, 0])
    };
    let allow = |conditions: Value| {
        json!({ "defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86"], "syscalls": [
            { "names": ["bind", "shmat"], "action": "SCMP_ACT_ALLOW" },
            { "names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": conditions }] })
    };
    let program = compiled(Machine::X86_64, &spec(allow(json!([]))));
    assert_eq!(operation(&program, 102, 1), ALLOW, "socketcall(SYS_SOCKET)");
    assert_eq!(operation(&program, 102, 2), ALLOW, "socketcall(SYS_BIND)");
    assert_eq!(operation(&program, 102, 3), EPERM, "socketcall(SYS_CONNECT)");
    assert_eq!(operation(&program, 117, 21), ALLOW, "ipc(SHMAT)");
    assert_eq!(operation(&program, 117, 22), EPERM, "ipc(SHMDT)");
    // The argument can't be seen, so what depends on it is not allowed.
    let condition = json!([{ "index": 0, "value": 40, "op": "SCMP_CMP_NE" }]);
    let program = compiled(Machine::X86_64, &spec(allow(condition)));
    assert_eq!(operation(&program, 102, 1), EPERM);
    // Nor is it, when the rule takes away what the default gives.
    let deny = json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"],
        "syscalls": [
        { "names": ["socket"], "action": "SCMP_ACT_ERRNO",
          "args": [{ "index": 0, "value": 40, "op": "SCMP_CMP_EQ" }] }] });
    let program = compiled(Machine::X86_64, &spec(deny));
    assert_eq!(operation(&program, 102, 1), EPERM);
    assert_eq!(operation(&program, 102, 2), ALLOW);
    assert_eq!(operation(&program, 359, 40), EPERM, "socket by its own number");
    assert_eq!(operation(&program, 359, 2), ALLOW);
}

#[test]
fn newer_calls_fail_with_enosys_unless_the_default_lets_them_through() {
    let profile = |default: &str| {
        let profile = json!({ "defaultAction": default,
            "syscalls": [{ "names": ["read", "openat2"], "action": "SCMP_ACT_KILL" }] });
        compiled(Machine::X86_64, &spec(profile))
    };
    let newer = |default| answer(&profile(default), Abi::X86_64, 438, [0; 6]);
    assert_eq!(newer("SCMP_ACT_ERRNO"), ENOSYS);
    assert_eq!(newer("SCMP_ACT_TRAP"), ENOSYS);
    assert_eq!(newer("SCMP_ACT_ALLOW"), ALLOW);
    assert_eq!(newer("SCMP_ACT_LOG"), 0x7ffc_0000);
    assert_eq!(newer("SCMP_ACT_TRACE"), 0x7ff0_0001);
    let unknown = json!({ "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [{ "names": ["from_the_future"], "action": "SCMP_ACT_ALLOW" }] });
    let program = compiled(Machine::X86_64, &spec(unknown));
    assert_eq!(answer(&program, Abi::X86_64, 400, [0; 6]), EPERM);
}

#[test]
fn flags_are_the_kernels() {
    let flags = |flags: Value| {
        let profile = spec(json!({ "defaultAction": "SCMP_ACT_ALLOW", "flags": flags }));
        compile_for(Machine::X86_64, &profile).unwrap().flags
    };
    assert_eq!(flags(json!(["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG"])), 3);
    assert_eq!(flags(json!(["SECCOMP_FILTER_FLAG_SPEC_ALLOW"])), 4);
    assert_eq!(flags(json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"])), 0);
    assert_eq!(flags(json!([])), 0);
    assert_eq!(flags(Value::Null), 4);
    let listening = |flags: Value| {
        let profile = spec(json!({ "defaultAction": "SCMP_ACT_ALLOW", "flags": flags,
            "syscalls": [{ "names": ["mount"], "action": "SCMP_ACT_NOTIFY" }] }));
        compile_for(Machine::X86_64, &profile).unwrap().flags
    };
    assert_eq!(listening(Value::Null), 8 + 4);
    assert_eq!(listening(json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"])), 8 + 32);
    assert_eq!(listening(json!(["SECCOMP_FILTER_FLAG_TSYNC"])), 8);
}

#[test]
fn what_is_not_served_is_refused() {
    let kind = |profile: Value| compile(&spec(profile)).unwrap_err().kind();
    let notify = json!({ "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/l",
        "syscalls": [{ "names": ["mount", "write"], "action": "SCMP_ACT_NOTIFY" }] });
    assert_eq!(kind(notify), Kind::InvalidArgument);
    assert_eq!(kind(json!({ "defaultAction": "SCMP_ACT_NOTIFY" })), Kind::InvalidArgument);
    let argument = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{ "names": ["mount"],
        "action": "SCMP_ACT_LOG", "args": [{ "index": 6, "value": 0, "op": "SCMP_CMP_EQ" }] }] });
    assert_eq!(kind(argument), Kind::InvalidArgument);
    let nameless = json!({ "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": [""], "action": "SCMP_ACT_LOG" }] });
    assert_eq!(kind(nameless), Kind::InvalidArgument);
}

#[test]
fn a_cache_compiles_once_and_keeps_few() {
    let cache = Cache::default();
    let first = cache.compile(&default_profile()).unwrap();
    assert!(Arc::ptr_eq(&first, &cache.compile(&default_profile()).unwrap()));
    for errno in 0..8 {
        let profile = json!({ "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": errno });
        cache.compile(&spec(profile)).unwrap();
    }
    assert_eq!(cache.filters.lock().unwrap().len(), MAX_CACHED);
    let again = cache.compile(&default_profile()).unwrap();
    assert!(!Arc::ptr_eq(&first, &again) && *first == *again);
}
