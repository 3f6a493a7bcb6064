//! Images and containers that try to get out.

use std::{fs, os::unix::fs::symlink};

use serde_json::json;
use shim_core::Container;

use super::cases;
use crate::{Bench, bundle::Made};

cases! {
    async fn proc_behind_a_symlink_is_refused(bench: &Bench) {
        for target in ["proc", "sys"] {
            let made = Made::script("true");
            fs::remove_dir(made.rootfs().join(target)).unwrap();
            symlink("/tmp", made.rootfs().join(target)).unwrap();
            let why = made.refusal(bench).await;
            assert!(why.contains("the target is not an ordinary directory: ELOOP"), "{why}");
        }
    }

    async fn dev_behind_a_symlink_stays_inside(bench: &Bench) {
        let outside = tempfile::tempdir().unwrap();
        let made = Made::script("ls /dev | wc -l").with(|spec| {
            let mounts = spec["mounts"].as_array_mut().unwrap();
            mounts.retain(|one| !one["destination"].as_str().unwrap().starts_with("/dev"));
        });
        fs::remove_dir(made.rootfs().join("dev")).unwrap();
        symlink(outside.path(), made.rootfs().join("dev")).unwrap();
        // The link leads to a path of the container, made there; the host's stays empty.
        made.output(bench).await;
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
        let inside = made.rootfs().join(outside.path().strip_prefix("/").unwrap());
        assert!(inside.join("null").exists());
    }

    async fn a_target_behind_a_symlink_stays_inside(bench: &Bench) {
        let outside = tempfile::tempdir().unwrap();
        for link in [outside.path().join("new"), "../../../../../../tmp/engine-escape".into()] {
            let made = Made::script("true").with(|spec| {
                spec["mounts"].as_array_mut().unwrap().push(json!({ "destination": "/data/deep",
                    "type": "bind", "source": "/etc/hostname", "options": ["bind", "ro"] }));
            });
            symlink(&link, made.rootfs().join("data")).unwrap();
            made.output(bench).await;
        }
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
        assert!(!fs::exists("/tmp/engine-escape").unwrap());
    }

    async fn procs_own_files_are_no_mount_points(bench: &Bench) {
        for target in ["/proc/self/attr", "/proc/sys", "/link/1/environ"] {
            let made = Made::script("true").with(|spec| {
                spec["mounts"].as_array_mut().unwrap().push(json!({ "destination": target,
                    "type": "bind", "source": "/etc", "options": ["bind"] }));
            });
            symlink("/proc", made.rootfs().join("link")).unwrap();
            let why = made.refusal(bench).await;
            assert!(why.contains("the target is inside proc: EPERM"), "{target}: {why}");
        }
        let made = Made::script("head -c 5 /proc/cpuinfo").with(|spec| {
            spec["mounts"].as_array_mut().unwrap().push(json!({ "destination": "/proc/cpuinfo",
                "type": "bind", "source": "/etc/passwd", "options": ["bind"] }));
        });
        assert_eq!(made.output(bench).await, "root:");
    }

    async fn masks_can_not_be_tricked_with_a_null_of_the_image(bench: &Bench) {
        let made = Made::script("stat -c %t,%T /proc/keys; cat /proc/keys | wc -c").with(|spec| {
            let mounts = spec["mounts"].as_array_mut().unwrap();
            mounts.retain(|one| !one["destination"].as_str().unwrap().starts_with("/dev"));
        });
        symlink("/proc/sysrq-trigger", made.rootfs().join("dev/null")).unwrap();
        assert_eq!(made.output(bench).await, "1,3\n0\n");
    }

    async fn the_shims_program_can_not_be_overwritten(bench: &Bench) {
        // While init waits it is still the shim's program: nobody inside may open it.
        let made = Made::script("true");
        let mut running = made.create(bench).await.unwrap();
        let look = "ls -l /proc/1/exe 2>&1; cat /proc/1/exe > /dev/null 2>&1 && echo open; \
            echo x > /proc/1/exe; ls /proc/1/fd 2>&1; cat /proc/1/environ 2>&1 | wc -c; true";
        let (printed, _) = running.exec_output(&["/bin/sh", "-c", look]).await;
        assert!(!printed.contains("open\n"), "{printed}");
        assert!(printed.contains("can't create /proc/1/exe: Permission denied"), "{printed}");
        running.container.delete().await.unwrap();
        running.wait().await;
        let made = Made::command(&["/proc/self/exe"]);
        // It would be the shim again, inside; the kernel runs it, it finds no socket and ends.
        let before = fs::metadata(std::env::current_exe().unwrap()).unwrap().len();
        if let Ok(mut running) = made.create(bench).await {
            let _ = running.container.start().await;
            running.end_quietly().await;
        }
        assert_eq!(fs::metadata(std::env::current_exe().unwrap()).unwrap().len(), before);
    }

    async fn a_cgroup_path_can_not_climb(bench: &Bench) {
        let made = Made::script("true")
            .with(|spec| spec["linux"]["cgroupsPath"] = "/engine-test/../../x".into());
        let why = made.refusal(bench).await;
        assert!(why.contains(".."), "{why}");
    }

    async fn a_fifo_for_passwd_does_not_hang(bench: &Bench) {
        let made = Made::script("echo $HOME");
        fs::remove_file(made.rootfs().join("etc/passwd")).unwrap();
        nix::unistd::mkfifo(&made.rootfs().join("etc/passwd"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(made.output(bench).await, "/\n");
    }
}
