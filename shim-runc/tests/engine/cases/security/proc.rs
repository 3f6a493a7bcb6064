//! A procfs or sysfs that is none, and masks with something else than the host's null device.

use std::{fs, os::unix::fs::symlink};

use serde_json::json;
use shim_core::Container;

use super::{cases, mount, without_mounts};
use crate::{Bench, bundle::Made};

cases! {
    async fn fake_proc_behind_a_symlink_is_refused(bench: &Bench) {
        for target in ["proc", "sys"] {
            let made = Made::script("true");
            fs::remove_dir(made.rootfs().join(target)).unwrap();
            symlink("/tmp", made.rootfs().join(target)).unwrap();
            let why = made.refusal(bench).await;
            assert!(why.contains("the target is not an ordinary directory: ELOOP"), "{why}");
        }
    }

    async fn fake_proc_below_a_symlink_is_refused(bench: &Bench) {
        // The name itself is a directory; one above it is not.
        let made = Made::script("true").with(|spec| mount(spec, json!({
            "destination": "/link/proc", "type": "proc", "source": "proc" })));
        symlink("/tmp", made.rootfs().join("link")).unwrap();
        let why = made.refusal(bench).await;
        assert!(why.contains("the target is not an ordinary directory: ELOOP"), "{why}");
    }

    async fn fake_proc_of_another_filesystem_is_refused(bench: &Bench) {
        let fake = tempfile::tempdir().unwrap();
        for one in [
            json!({ "destination": "/proc", "type": "tmpfs", "source": "tmpfs" }),
            json!({ "destination": "/proc/", "type": "bind", "source": fake.path(), "options": ["bind"] }),
            json!({ "destination": "/tmp/../proc", "type": "bind", "source": fake.path(), "options": ["rbind"] }),
        ] {
            let made = Made::script("true").with(|spec| {
                without_mounts(spec, "/proc");
                mount(spec, one.clone());
            });
            let why = made.refusal(bench).await;
            assert!(why.contains("can't be /proc"), "{one}: {why}");
        }
        // The host's own is one.
        let made = Made::script("readlink /proc/self/root").with(|spec| {
            without_mounts(spec, "/proc");
            mount(spec, json!({ "destination": "/proc", "type": "bind", "source": "/proc",
                "options": ["rbind"] }));
        });
        made.run(bench).await;
    }

    async fn fake_proc_subpaths_are_no_mount_points(bench: &Bench) {
        for target in ["/proc/self/attr", "/proc/sys", "/link/1/environ", "/proc/../proc/sys/kernel",
            "/proc/self/root/proc/sys", "/proc/thread-self/attr/exec"] {
            let made = Made::script("true").with(|spec| mount(spec, json!({ "destination": target,
                "type": "bind", "source": "/etc", "options": ["bind"] })));
            symlink("/proc", made.rootfs().join("link")).unwrap();
            let why = made.refusal(bench).await;
            assert!(why.contains("the target is inside proc: EPERM")
                || why.contains("find the target: ELOOP"), "{target}: {why}");
        }
        let made = Made::script("head -c 5 /proc/cpuinfo").with(|spec| mount(spec, json!({
            "destination": "/proc/cpuinfo", "type": "bind", "source": "/etc/passwd",
            "options": ["bind"] })));
        assert_eq!(made.output(bench).await, "root:");
    }

    async fn fake_proc_gets_no_settings(bench: &Bench) {
        let made = Made::command(&["/bin/sleep", "1000"]).with(|spec| {
            without_mounts(spec, "/proc");
            spec["linux"]["sysctl"] = json!({ "kernel.shmmni": "77" });
        });
        let files = ["sys/kernel/shmmni", "self/attr/exec", "self/attr/apparmor/exec",
            "self/oom_score_adj", "self/uid_map"];
        for file in files {
            let file = made.rootfs().join("proc").join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "of the image").unwrap();
        }
        let running = made.create(bench).await.unwrap();
        running.container.start().await.unwrap();
        for file in files {
            let text = fs::read_to_string(made.rootfs().join("proc").join(file)).unwrap();
            assert_eq!(text, "of the image", "{file}");
        }
        // The namespace has it.
        let pid = running.init.as_ref().unwrap().pid;
        let look = Made::script("cat /proc/sys/kernel/shmmni").with(|spec| {
            let all = spec["linux"]["namespaces"].as_array_mut().unwrap();
            all.retain(|one| one["type"] != "ipc");
            all.push(json!({ "type": "ipc", "path": format!("/proc/{pid}/ns/ipc") }));
        });
        assert_eq!(look.output(bench).await, "77\n");
        running.end().await;
    }

    async fn masked_path_is_not_covered_with_a_null_of_the_image(bench: &Bench) {
        let look = "stat -c %t,%T /proc/keys; cat /proc/keys | wc -c";
        let made = Made::script(look).with(|spec| without_mounts(spec, "/dev"));
        symlink("/proc/uptime", made.rootfs().join("dev/null")).unwrap();
        assert_eq!(made.output(bench).await, "1,3\n0\n");
        let made = Made::script(look).with(|spec| without_mounts(spec, "/dev"));
        fs::write(made.rootfs().join("dev/null"), "a file of the image\n").unwrap();
        assert_eq!(made.output(bench).await, "1,3\n0\n");
    }

    async fn masked_path_stays_covered_under_other_names(bench: &Bench) {
        let look = "cat /proc/1/root/proc/keys /proc/self/root/proc/keys /proc/self/cwd/proc/keys; \
            umount /proc/keys 2>/dev/null; cat /proc/keys; echo end";
        assert_eq!(Made::script(look).output(bench).await, "end\n");
    }
}
