//! What can't be made says why, and leaves nothing.

use std::fs;

use serde_json::json;
use shim_core::{Container, Kind};

use super::cases;
use crate::{
    Bench,
    bundle::Made,
    host::{self, children},
};

async fn refuses(bench: &Bench, change: impl FnOnce(&mut serde_json::Value), expected: &str) {
    let made = Made::script("true").with(change);
    let why = made.refusal(bench).await;
    assert!(why.contains(expected), "{why:?} does not say {expected:?}");
    assert!(!made.dir.path().join("native.json").exists());
}

cases! {
    async fn a_program_that_is_not_there(bench: &Bench) {
        for (args, expected) in [
            ("nope", r#"exec: "nope": executable file not found in $PATH"#),
            ("/nope", r#"exec: "/nope": stat /nope: no such file or directory"#),
            ("/etc/passwd", r#"exec: "/etc/passwd": permission denied"#),
        ] {
            assert_eq!(Made::command(&[args]).refusal(bench).await, expected);
        }
    }

    async fn a_program_in_no_known_format(bench: &Bench) {
        let made = Made::command(&["/bin/text"]);
        fs::write(made.rootfs().join("bin/text"), "no program\n").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(made.rootfs().join("bin/text"), mode).unwrap();
        let mut running = made.create(bench).await.unwrap();
        let err = running.container.start().await.unwrap_err();
        assert_eq!(format!("{err:#}"), "exec /bin/text: ENOEXEC: Exec format error");
        running.wait().await;
        running.container.delete().await.unwrap();
    }

    async fn a_mount_that_cannot_be(bench: &Bench) {
        let push = |mount: serde_json::Value| move |spec: &mut serde_json::Value| {
            spec["mounts"].as_array_mut().unwrap().push(mount);
        };
        refuses(bench, push(json!({ "destination": "/x", "type": "nofs", "source": "x" })),
            "mount nofs on /x: ENODEV: ").await;
        refuses(bench, push(json!({ "destination": "/x", "type": "tmpfs", "source": "x",
            "options": ["nonsense=1"] })), "mount tmpfs on /x: set its options: EINVAL: ").await;
        refuses(bench, push(json!({ "destination": "/x", "type": "bind", "source": "/proc/nowhere" })),
            "open /proc/nowhere: ENOENT: ").await;
        refuses(bench, push(json!({ "destination": "/x", "type": "bind", "source": "/tmp",
            "options": ["idmap"] })), "an idmapped mount needs mappings").await;
    }

    async fn a_spec_that_asks_for_too_much(bench: &Bench) {
        let apparmor = fs::read_to_string("/sys/module/apparmor/parameters/enabled");
        let expected = if apparmor.is_ok_and(|enabled| enabled.trim() == "Y") {
            "apply AppArmor profile x: ENOENT"
        } else {
            "AppArmor, for profile x, is not enabled"
        };
        refuses(bench, |spec| spec["process"]["apparmorProfile"] = "x".into(), expected).await;
        refuses(bench, |spec| spec["linux"]["intelRdt"] = json!({ "closID": "x" }), "intelRdt").await;
        let bold = |spec: &mut serde_json::Value| spec["process"]["oomScoreAdj"] = (-999).into();
        if host::has_sys_resource() {
            let made = Made::script("cat /proc/self/oom_score_adj").with(bold);
            assert_eq!(made.output(bench).await, "-999\n");
        } else {
            refuses(bench, bold, "set oom score to -999: ").await;
        }
        refuses(bench, |spec| spec["process"]["rlimits"] =
            json!([{ "type": "RLIMIT_NOFILE", "soft": 9, "hard": 99_999_999 }]),
            "set RLIMIT_NOFILE to 9:99999999: EPERM: ").await;
        refuses(bench, |spec| spec["linux"]["sysctl"] = json!({ "kernel.panic": "1" }),
            "kernel.panic is not in a separate kernel namespace").await;
        refuses(bench, |spec| spec["linux"]["namespaces"].as_array_mut().unwrap()
            .push(json!({ "type": "pid" })), "listed twice").await;
        refuses(bench, |spec| spec["linux"]["namespaces"].as_array_mut().unwrap()
            .push(json!({ "type": "user", "path": "/proc/self/ns/net" })),
            "open namespace /proc/self/ns/net: it is no namespace of the kind").await;
        refuses(bench, |spec| spec["ociVersion"] = "2.0.0".into(), "only 1.x").await;
        refuses(bench, |spec| spec["process"]["args"] = json!([]), "no program").await;
        refuses(bench, |spec| spec["process"]["cwd"] = "relative".into(), "not absolute").await;
    }

    async fn a_root_filesystem_that_is_not_there(bench: &Bench) {
        let made = Made::script("true");
        fs::remove_dir_all(made.rootfs()).unwrap();
        let why = made.refusal(bench).await;
        assert!(why.contains("rootfs: ENOENT"), "{why}");
    }

    async fn a_second_container_in_the_same_cgroup(bench: &Bench) {
        let path = |spec: &mut serde_json::Value| spec["linux"]["cgroupsPath"] = format!("/{}/same", host::namespace()).into();
        let first = Made::command(&["/bin/sleep", "100"]).with(path).create(bench).await.unwrap();
        first.container.start().await.unwrap();
        let err = Made::script("true").with(path).create(bench).await.map(|_| ()).unwrap_err();
        assert_eq!(err.kind(), Kind::FailedPrecondition, "{err:#}");
        assert_eq!(first.container.pids().await.unwrap().len(), 1);
        first.end().await;
    }

    async fn many_at_once(bench: &Bench) {
        let all: Vec<_> = (0..20).map(|_| Made::script("echo $$")).collect();
                let runs = all.iter().map(|made| async move { made.output(bench).await });
        let printed = join_all(runs).await;
        assert!(printed.iter().all(|printed| printed == "1\n"), "{printed:?}");
    }

    async fn a_stem_without_descriptors_says_so_and_goes_on(bench: &Bench) {
        let (bench, stem) = another(bench).await;
        let limit = |soft: u64| {
            let (pid, limit) = (stem.to_string(), format!("--nofile={soft}:"));
            let done = std::process::Command::new("prlimit").args(["--pid", &pid, &limit]).status();
            assert!(done.unwrap().success());
        };
        limit(10);
        let err = Made::script("true").create(&bench).await.map(|_| ()).unwrap_err();
        assert_eq!((err.kind(), format!("{err:#}").as_str()),
            (Kind::ResourceExhausted, "clone a process: EMFILE: Too many open files"));
        limit(1024);
        let many = Made::script("ls -d /m/* | wc -l").with(|spec| {
            let mounts = spec["mounts"].as_array_mut().unwrap();
            mounts.extend((0..300).map(|index| json!({ "destination": format!("/m/{index}"),
                "type": "bind", "source": "/etc/hostname", "options": ["bind", "ro"] })));
        });
        assert_eq!(many.output(&bench).await, "300\n");
        // It ends with its shim.
        drop(bench);
        nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(stem), None).unwrap();
    }

    async fn another_takes_the_place_of_a_stem_that_is_gone(bench: &Bench) {
        let (bench, mut stem) = another(bench).await;
        for _ in 0..2 {
            assert_eq!(Made::script("echo hello").output(&bench).await, "hello\n");
            let before = children();
            let gone = nix::unistd::Pid::from_raw(stem);
            nix::sys::signal::kill(gone, nix::sys::signal::Signal::SIGKILL).unwrap();
            nix::sys::wait::waitpid(gone, None).unwrap();
            assert_eq!(Made::script("echo again").output(&bench).await, "again\n");
            stem = *children().iter().find(|child| !before.contains(child)).unwrap();
        }
        // It ends with its shim, as the first one would have.
        drop(bench);
        nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(stem), None).unwrap();
    }
}

/// A backend with a stem of its own: the others still need theirs.
pub(super) async fn another(bench: &Bench) -> (Bench, i32) {
    let mut backend = shim_runc::NativeBackend::new();
    let before = children();
    shim_core::Backend::open(&mut backend, bench.host.clone()).unwrap();
    // It is made as soon as the runtime has nothing else to do.
    let stem = loop {
        match children().iter().find(|child| !before.contains(child)) {
            Some(stem) => break *stem,
            None => tokio::task::yield_now().await,
        }
    };
    (Bench { backend, host: bench.host.clone() }, stem)
}

async fn join_all<T>(futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut futures: Vec<_> = futures.map(Box::pin).collect();
    let mut done: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, done) in futures.iter_mut().zip(&mut done) {
            if done.is_none()
                && let std::task::Poll::Ready(value) = future.as_mut().poll(context)
            {
                *done = Some(value);
            }
        }
        if done.iter().all(Option::is_some) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    done.into_iter().flatten().collect()
}
