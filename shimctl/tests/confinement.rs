//! What a container may call that was asked for nothing: this program looks from inside.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking")]
#![expect(unsafe_code, reason = "system calls that no library offers")]

mod stage;

use std::{fs, io, process::Output};

use stage::{Stage, text};

/// Set for the look from inside.
const INSIDE: &str = "SHIMCTL_TEST_INSIDE";

/// Calls that a container has no business with, with arguments that do no harm where they get through.
fn calls() -> Vec<(&'static str, libc::c_long, [usize; 5])> {
    let new_user = usize::try_from(libc::CLONE_NEWUSER).unwrap();
    vec![
        ("mount", libc::SYS_mount, [0; 5]),
        ("umount2", libc::SYS_umount2, [0; 5]),
        ("pivot_root", libc::SYS_pivot_root, [0; 5]),
        ("fsopen", libc::SYS_fsopen, [0; 5]),
        ("open_tree", libc::SYS_open_tree, [0; 5]),
        ("move_mount", libc::SYS_move_mount, [0; 5]),
        ("unshare", libc::SYS_unshare, [new_user, 0, 0, 0, 0]),
        ("setns", libc::SYS_setns, [usize::MAX, 0, 0, 0, 0]),
        // PTRACE_ATTACH to the first process.
        ("ptrace", libc::SYS_ptrace, [16, 1, 0, 0, 0]),
        ("process_vm_readv", libc::SYS_process_vm_readv, [1, 0, 0, 0, 0]),
        ("kcmp", libc::SYS_kcmp, [1, 1, 9, 0, 0]),
        // KEYCTL_GET_KEYRING_ID of the session's.
        ("keyctl", libc::SYS_keyctl, [0, usize::MAX - 2, 0, 0, 0]),
        ("add_key", libc::SYS_add_key, [0; 5]),
        ("request_key", libc::SYS_request_key, [0; 5]),
        ("bpf", libc::SYS_bpf, [99, 0, 0, 0, 0]),
        ("perf_event_open", libc::SYS_perf_event_open, [0; 5]),
        ("userfaultfd", libc::SYS_userfaultfd, [1, 0, 0, 0, 0]),
        ("io_uring_setup", libc::SYS_io_uring_setup, [1, 0, 0, 0, 0]),
        ("kexec_load", libc::SYS_kexec_load, [0, 0, 0, 99, 0]),
        ("init_module", libc::SYS_init_module, [0; 5]),
        ("finit_module", libc::SYS_finit_module, [usize::MAX, 0, 0, 0, 0]),
        ("delete_module", libc::SYS_delete_module, [0; 5]),
        ("reboot", libc::SYS_reboot, [0; 5]),
        ("swapon", libc::SYS_swapon, [0; 5]),
        ("swapoff", libc::SYS_swapoff, [0; 5]),
        ("acct", libc::SYS_acct, [1, 0, 0, 0, 0]),
        ("quotactl", libc::SYS_quotactl, [usize::MAX, 0, 0, 0, 0]),
        ("syslog", libc::SYS_syslog, [99, 0, 0, 0, 0]),
        ("settimeofday", libc::SYS_settimeofday, [1, 0, 0, 0, 0]),
        ("clock_settime", libc::SYS_clock_settime, [99, 0, 0, 0, 0]),
        ("open_by_handle_at", libc::SYS_open_by_handle_at, [usize::MAX, 0, 0, 0, 0]),
        ("personality", libc::SYS_personality, [0x020_0000, 0, 0, 0, 0]),
        ("socket of AF_VSOCK", libc::SYS_socket, [40, 1, 0, 0, 0]),
        ("socket of AF_ALG", libc::SYS_socket, [38, 5, 0, 0, 0]),
    ]
}

/// Makes a call, and says with which error it failed; 0 for none.
fn call(number: libc::c_long, arguments: [usize; 5]) -> i32 {
    let [a, b, c, d, e] = arguments;
    // SAFETY: no argument points anywhere, so the kernel writes nowhere; what could change this process
    // changes one that is about to end.
    let done = unsafe { libc::syscall(number, a, b, c, d, e) };
    if done < 0 { io::Error::last_os_error().raw_os_error().unwrap() } else { 0 }
}

/// Run in a container: prints each call and its error.
#[test]
fn calls_are_made_from_inside() {
    if std::env::var_os(INSIDE).is_none() {
        println!("skipped: it is for the other tests to run");
        return;
    }
    for (name, number, arguments) in calls() {
        println!("call {name}: {}", call(number, arguments));
    }
    // SIGCHLD in its low byte, and no stack: a fork in a new user namespace.
    let flags = usize::try_from(libc::CLONE_NEWUSER | libc::SIGCHLD).unwrap();
    // SAFETY: as a fork: the child has a copy of this memory, and does nothing but end.
    let child = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    if child == 0 {
        // SAFETY: it ends at once.
        unsafe { libc::_exit(0) };
    }
    let errno = if child < 0 { io::Error::last_os_error().raw_os_error().unwrap() } else { 0 };
    println!("call clone with CLONE_NEWUSER: {errno}");
    println!("call clone3: {}", call(libc::SYS_clone3, [0; 5]));
}

fn look(stage: &Stage, flags: &[&str]) -> Vec<(String, i32)> {
    let program = std::env::current_exe().unwrap();
    let program =
        [program.to_str().unwrap(), "--exact", "calls_are_made_from_inside", "--nocapture"];
    let set = format!("{INSIDE}=1");
    let output = run(stage, &[&["--env", &set], flags].concat(), &program);
    let printed = text(&output.stdout);
    let calls = printed.lines().filter_map(|line| line.split_once("call ")?.1.rsplit_once(": "));
    let calls: Vec<_> =
        calls.map(|(name, errno)| (name.to_owned(), errno.parse().unwrap())).collect();
    assert_eq!(calls.len(), self::calls().len() + 2, "{printed} {}", text(&output.stderr));
    calls
}

fn run(stage: &Stage, flags: &[&str], program: &[&str]) -> Output {
    let shim = stage.shim.to_str().unwrap();
    let arguments = [&["run", "--shim", shim], flags, &["host", "--"], program].concat();
    stage.command(&arguments).output().unwrap()
}

#[test]
fn what_a_container_has_no_business_with_is_refused() {
    let Some(stage) = Stage::native("calls") else { return };
    for (name, errno) in look(&stage, &[]) {
        let expected = if name == "clone3" { libc::ENOSYS } else { libc::EPERM };
        assert_eq!(errno, expected, "{name}");
    }
    stage.check_nothing_is_left();
}

#[test]
fn it_is_the_profile_that_refuses() {
    let Some(stage) = Stage::native("unconfined") else { return };
    let profile = stage.root.path().join("profile.json");
    fs::write(&profile, r#"{ "defaultAction": "SCMP_ACT_ALLOW" }"#).unwrap();
    for flags in [
        &["--seccomp", "unconfined"][..],
        &["--unconfined"],
        &["--seccomp", profile.to_str().unwrap()],
    ] {
        let found = look(&stage, flags);
        let errno = |name: &str| found.iter().find(|(known, _)| known == name).unwrap().1;
        // What takes no capability gets through, or says what is wrong with its arguments.
        for name in
            ["unshare", "keyctl", "clone with CLONE_NEWUSER", "clone3", "io_uring_setup", "kcmp"]
        {
            assert_ne!(errno(name), libc::EPERM, "{flags:?} {name}");
        }
    }
    let missing = run(&stage, &["--seccomp", "/no/such/profile"], &["true"]);
    assert!(text(&missing.stderr).contains("read /no/such/profile"), "{}", text(&missing.stderr));
    stage.check_nothing_is_left();
}

#[test]
fn what_is_not_confined_is_not() {
    let Some(stage) = Stage::native("masks") else { return };
    let program = [
        "sh",
        "-c",
        "grep -E 'NoNewPrivs|Seccomp:' /proc/self/status | tr -d '\\t'; \
        grep -cE ' /proc/(sys|keys) ' /proc/self/mountinfo",
    ];
    let printed = |flags| text(&run(&stage, flags, &program).stdout);
    assert_eq!(printed(&[]), "NoNewPrivs:1\nSeccomp:2\n2\n");
    assert_eq!(printed(&["--unconfined"]), "NoNewPrivs:0\nSeccomp:0\n0\n");
    assert_eq!(printed(&["--seccomp", "unconfined"]), "NoNewPrivs:1\nSeccomp:0\n2\n");
    stage.check_nothing_is_left();
}

#[test]
fn usual_programs_work() {
    let Some(stage) = Stage::native("programs") else { return };
    let script = "set -e; cd /tmp; ls -la / >/dev/null; id; ps -ef >/dev/null; df / >/dev/null; \
        find /etc -maxdepth 1 -name 'h*' | sort | head -n 1; mkdir d; ln -s d l; mkfifo d/f; \
        mknod d/null c 1 3; chown 7:8 d; chmod 700 d; touch -d 2001-01-01 d/t; stat -c %Y d/t; \
        cp -a d e; mv e g; rm -r g; tar cf - /etc/passwd 2>/dev/null | gzip | gunzip | wc -c | tr -d ' '; \
        dd if=/dev/zero of=z bs=1k count=5 2>/dev/null; wc -c <z; nice true; timeout 5 true; \
        sleep 0.01 & wait; (trap 'echo caught' TERM; kill -TERM $(exec sh -c 'echo $PPID')); \
        chroot / true; date +%Y >/dev/null; seq 3 | awk '{ s += $1 } END { print s }'; \
        flock z true; xargs --version >/dev/null; perl -e 'print fork ? (wait, \"forked\\n\")[1] : \"\"'; echo end";
    let output = run(&stage, &[], &["sh", "-c", script]);
    let printed = text(&output.stdout);
    assert!(
        output.status.success() && printed.ends_with("end\n"),
        "{printed} {}",
        text(&output.stderr)
    );
    let python = "import threading, socket, subprocess, tempfile, multiprocessing.pool as p\n\
        t = [threading.Thread(target=lambda: sum(range(999))) for _ in range(9)]\n\
        [x.start() for x in t]; [x.join() for x in t]\n\
        s = socket.create_server(('127.0.0.1', 0)); c = socket.create_connection(s.getsockname()); c.close()\n\
        print(subprocess.check_output(['echo', 'fine']).decode(), end='')";
    let output = run(&stage, &[], &["python3", "-c", python]);
    if output.status.code() == Some(125) && text(&output.stderr).contains("not found") {
        println!("skipped in part: no python3 here");
    } else {
        assert_eq!(text(&output.stdout), "fine\n", "{}", text(&output.stderr));
    }
    stage.check_nothing_is_left();
}
