//! Mounts of the spec.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown, symlink},
};

use serde_json::json;

use super::cases;
use crate::{Bench, bundle::Made, host};

fn mount(made: Made, mount: serde_json::Value) -> Made {
    made.with(|spec| spec["mounts"].as_array_mut().unwrap().push(mount))
}

cases! {
    async fn a_tmpfs_can_begin_with_what_it_covers(bench: &Bench) {
        let script = "cd /data; find . -mindepth 1 | sort | xargs stat -c '%n %F %a %u'; \
            cat a/big | wc -c; readlink l; echo new > a/new; cat a/new";
        let made = mount(Made::script(script), json!({ "destination": "/data", "type": "tmpfs",
            "source": "tmpfs", "options": ["tmpcopyup", "nosuid", "mode=755"] }));
        let data = made.rootfs().join("data");
        fs::create_dir_all(data.join("a/b")).unwrap();
        fs::write(data.join("a/big"), vec![b'x'; 3_000_000]).unwrap();
        symlink("busybox", made.rootfs().join("bin/xargs")).unwrap();
        let mode = |path: &str, mode| {
            fs::set_permissions(data.join(path), PermissionsExt::from_mode(mode)).unwrap();
        };
        symlink("/etc/passwd", data.join("l")).unwrap();
        chown(data.join("a/big"), Some(1000), Some(1000)).unwrap();
        mode("a/big", 0o4750);
        mode("a/b", 0o700);
        nix::unistd::mkfifo(&data.join("p"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        let expected = "./a directory 755 0\n./a/b directory 700 0\n./a/big regular file 4750 1000\n\
            ./l symbolic link 777 0\n./p fifo 400 0\n3000000\n/etc/passwd\nnew\n";
        assert_eq!(made.output(bench).await, expected);
        // What is written goes into the tmpfs.
        assert!(!data.join("a/new").exists());
        let made = made.with(|spec| {
            let mounts = spec["mounts"].as_array_mut().unwrap();
            mounts.last_mut().unwrap()["options"] = json!(["ro", "tmpcopyup"]);
            spec["process"]["args"][2] = "cat /data/a/big | wc -c; touch /data/x".into();
        });
        let expected = "3000000\ntouch: /data/x: Read-only file system\n";
        assert_eq!(made.run(bench).await.0, expected);
    }

    async fn files_and_directories_are_bound(bench: &Bench) {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("file"), "from outside\n").unwrap();
        let made = Made::script("cat /data/file /etc/one; echo changed > /data/file; \
            touch /etc/one 2>&1 || true");
        let made = mount(made, json!({ "destination": "/data", "type": "bind",
            "source": outside.path(), "options": ["rbind", "rprivate"] }));
        let made = mount(made, json!({ "destination": "/etc/one",
            "source": outside.path().join("file"), "options": ["bind", "ro"] }));
        let printed = made.output(bench).await;
        assert_eq!(printed, "from outside\nfrom outside\ntouch: /etc/one: Read-only file system\n");
        assert_eq!(fs::read_to_string(outside.path().join("file")).unwrap(), "changed\n");
        assert!(fs::metadata(made.rootfs().join("data")).unwrap().is_dir());
    }

    async fn flags_are_set_and_kept(bench: &Bench) {
        let outside = tempfile::tempdir().unwrap();
        let made = Made::script("grep ' /[abc] ' /proc/self/mountinfo | cut -d' ' -f5,6");
        let bind = |target: &str, options: &[&str]| json!({ "destination": target,
            "type": "bind", "source": outside.path(), "options": options });
        let made = mount(made, bind("/a", &["bind", "ro", "nosuid", "noexec", "noatime"]));
        let made = mount(made, bind("/b", &["rbind", "rro", "nodev"]));
        let made = mount(made, json!({ "destination": "/c", "type": "tmpfs", "source": "tmpfs",
            "options": ["ro", "nodev", "size=1m"] }));
        let printed = made.output(bench).await;
        let expected = "/a ro,nosuid,noexec,noatime\n/b ro,nodev,relatime\n/c ro,nodev,relatime\n";
        assert_eq!(printed, expected);
    }

    async fn a_read_only_tmpfs_holds_later_mounts(bench: &Bench) {
        let made = Made::script("ls /c; touch /c/x 2>&1; touch /c/in/x && echo ok");
        let made = mount(made, json!({ "destination": "/c", "type": "tmpfs", "source": "tmpfs",
            "options": ["ro"] }));
        let made = mount(made, json!({ "destination": "/c/in", "type": "tmpfs", "source": "tmpfs" }));
        let printed = made.output(bench).await;
        assert_eq!(printed, "in\ntouch: /c/x: Read-only file system\nok\n");
    }

    async fn propagation_goes_where_it_should(bench: &Bench) {
        let outside = tempfile::tempdir().unwrap();
        let path = outside.path().to_str().unwrap();
        let none: Option<&str> = None;
        use nix::mount::{MsFlags, mount as host_mount, umount2, MntFlags};
        host_mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), none).unwrap();
        host_mount(none, path, none, MsFlags::MS_SHARED, none).unwrap();
        fs::create_dir(outside.path().join("later")).unwrap();
        let made = Made::script("read go; for d in a b; do grep -c \" /$d/later \" /proc/self/mountinfo; done; \
            grep ' /[ab] ' /proc/self/mountinfo | cut -d' ' -f7 | tr -d '0-9'");
        let bind = |target: &str, option: &str| json!({ "destination": target,
            "type": "bind", "source": path, "options": ["rbind", option] });
        let made = mount(mount(made, bind("/a", "rslave")), bind("/b", "rprivate"));
        let mut running = made.create(bench).await.unwrap();
        shim_core::Container::start(&running.container).await.unwrap();
        let later = format!("{path}/later");
        host_mount(Some("tmpfs"), later.as_str(), Some("tmpfs"), MsFlags::empty(), none).unwrap();
        running.type_in("go\n");
        running.wait().await;
        let printed = running.printed();
        shim_core::Container::delete(&running.container).await.unwrap();
        umount2(later.as_str(), MntFlags::MNT_DETACH).unwrap();
        umount2(path, MntFlags::MNT_DETACH).unwrap();
        assert_eq!(printed, "1\n0\nmaster:\n-\n");
    }

    async fn a_shared_root_lets_volumes_through_and_nothing_else(bench: &Bench) {
        let outside = tempfile::tempdir().unwrap();
        let path = outside.path().to_str().unwrap();
        let none: Option<&str> = None;
        use nix::mount::{MntFlags, MsFlags, mount as host_mount, umount2};
        host_mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), none).unwrap();
        host_mount(none, path, none, MsFlags::MS_SHARED, none).unwrap();
        fs::create_dir(outside.path().join("inner")).unwrap();
        let made = Made::script("mount -t tmpfs x /vol/inner && touch /vol/inner/from-inside; \
            mount -t tmpfs x /tmp; grep -c '^[^ ]* [^ ]* [^ ]* [^ ]* / .*shared:' /proc/self/mountinfo; read go");
        let root = made.rootfs();
        let root_path = root.to_str().unwrap();
        host_mount(Some(root_path), root_path, none, MsFlags::MS_BIND, none).unwrap();
        host_mount(none, root_path, none, MsFlags::MS_SHARED, none).unwrap();
        let made = mount(made, json!({ "destination": "/vol", "type": "bind", "source": path,
            "options": ["rbind", "rshared"] })).with(|spec| {
            spec["linux"]["rootfsPropagation"] = "shared".into();
            for set in ["bounding", "effective", "permitted"] {
                spec["process"]["capabilities"][set].as_array_mut().unwrap().push("CAP_SYS_ADMIN".into());
            }
        });
        let mut running = made.create(bench).await.unwrap();
        shim_core::Container::start(&running.container).await.unwrap();
        let printed = crate::bundle::read_until(running.output.as_ref().unwrap(), "\n");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let seen = fs::exists(outside.path().join("inner/from-inside")).unwrap();
        let leaked = mounts.lines().filter(|line| line.contains(&format!("{root_path}/"))).count();
        running.type_in("go\n");
        running.wait().await;
        shim_core::Container::delete(&running.container).await.unwrap();
        let _ = umount2(format!("{path}/inner").as_str(), MntFlags::MNT_DETACH);
        umount2(path, MntFlags::MNT_DETACH).unwrap();
        umount2(root_path, MntFlags::MNT_DETACH).unwrap();
        assert_eq!((printed.trim(), seen, leaked), ("1", true, 0));
    }

    async fn its_cgroups_are_visible(bench: &Bench) {
        if host::is_unified() {
            let made = mount(Made::script("ls /sys/fs/cgroup/cgroup.procs; cat /proc/self/cgroup"),
                json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup" }));
            let printed = made.output(bench).await;
            assert!(printed.starts_with("/sys/fs/cgroup/cgroup.procs\n"), "{printed}");
            return;
        }
        let made = Made::script("ls /sys/fs/cgroup | sort | tr '\\n' ' '; \
            cat /sys/fs/cgroup/memory/memory.limit_in_bytes; cat /proc/self/cgroup | cut -d: -f3 | sort -u");
        let made = mount(made, json!({ "destination": "/sys/fs/cgroup", "type": "cgroup",
            "source": "cgroup", "options": ["ro", "nosuid", "noexec", "nodev"] }))
            .with(|spec| spec["linux"]["resources"]["memory"] = json!({ "limit": 64 << 20 }));
        let expected = "blkio cpu cpuacct cpuset devices freezer memory pids systemd 67108864\n/\n";
        assert_eq!(made.output(bench).await, expected);
        let made = made.with(|spec| {
            spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|one| one["type"] != "cgroup");
        });
        let printed = made.output(bench).await;
        assert!(printed.starts_with("blkio cpu cpuacct cpuset devices freezer memory pids systemd 67108864\n"));
        assert!(printed.contains("/engine-test-"), "{printed}");
    }

    async fn options_that_are_too_long_for_fsconfig_work(bench: &Bench) {
        let layers = tempfile::tempdir().unwrap();
        let mut lower = Vec::new();
        for index in 0..12 {
            let layer = layers.path().join(format!("a-directory-with-a-long-name-{index}"));
            fs::create_dir(&layer).unwrap();
            fs::write(layer.join(format!("f{index}")), "").unwrap();
            lower.push(layer.display().to_string());
        }
        let made = Made::script("ls /over | wc -l");
        let made = mount(made, json!({ "destination": "/over", "type": "overlay", "source": "overlay",
            "options": [format!("lowerdir={}", lower.join(":"))] }));
        assert_eq!(made.output(bench).await, "12\n");
    }

    async fn targets_behind_symlinks_of_the_image_are_found(bench: &Bench) {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("file"), "hello\n").unwrap();
        let made = Made::script("cat /etc/resolv.conf /link/deep/file; ls /run2/sub");
        symlink("../run2/sub/resolv.conf", made.rootfs().join("etc/resolv.conf")).unwrap();
        symlink("/real", made.rootfs().join("link")).unwrap();
        fs::create_dir(made.rootfs().join("real")).unwrap();
        let bind = |target: &str| json!({ "destination": target, "type": "bind",
            "source": outside.path().join("file"), "options": ["bind"] });
        let made = mount(mount(made, bind("/etc/resolv.conf")), bind("/link/deep/file"));
        assert_eq!(made.output(bench).await, "hello\nhello\nresolv.conf\n");
        assert!(made.rootfs().join("real/deep/file").exists());
    }

    async fn a_bound_dev_gets_no_devices(bench: &Bench) {
        let outside = tempfile::tempdir().unwrap();
        let made = Made::script("ls /dev | wc -l").with(|spec| {
            let mounts = spec["mounts"].as_array_mut().unwrap();
            mounts.retain(|one| !one["destination"].as_str().unwrap().starts_with("/dev"));
            mounts.push(json!({ "destination": "/dev", "type": "bind",
                "source": outside.path(), "options": ["bind"] }));
        });
        assert_eq!(made.output(bench).await, "0\n");
    }
}
