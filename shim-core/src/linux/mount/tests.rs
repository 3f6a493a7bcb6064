//! Mounts by a thread in a mount namespace of its own: what it leaves goes with it.

mod apart;

use std::{
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use nix::sched::{CloneFlags, unshare};

use super::*;
use crate::error::Kind;

struct Stage {
    dir: tempfile::TempDir,
    rootfs: PathBuf,
}

impl Stage {
    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// The mounts on the root filesystem and below, oldest first: their places and types.
    fn mounts(&self) -> Vec<(String, String)> {
        let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let of_line = |line: &str| {
            let (head, tail) = line.split_once(" - ")?;
            let place = head.split(' ').nth(4)?.strip_prefix(self.rootfs.to_str()?)?;
            Some((place.to_owned(), tail.split(' ').next()?.to_owned()))
        };
        table.lines().filter_map(of_line).collect()
    }

    /// An empty ext4 image. Without the means for one the test is skipped.
    fn ext4(&self, name: &str) -> Option<String> {
        let image = self.path(name);
        File::create(&image).unwrap().set_len(1 << 20).unwrap();
        let made = Command::new("mkfs.ext4").args(["-q", "-E", "nodiscard", &image]).output();
        let is_made = made.is_ok_and(|made| made.status.success());
        if !is_made || !Path::new("/dev/loop-control").exists() {
            println!("skipped: no mkfs.ext4 or no loop devices");
            return None;
        }
        Some(image)
    }

    fn mount(&self, mounts: &[Mount]) -> Result<()> {
        mount_all(mounts, &Bundle::new(self.dir.path()).unwrap())
    }
}

/// Runs a test with a root filesystem to mount on.
fn stage(test: impl FnOnce(&Stage) + Send) {
    let body = || {
        if let Err(err) = unshare(CloneFlags::CLONE_NEWNS) {
            println!("skipped: no mount namespace of its own: {err}");
            return;
        }
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_PRIVATE | MsFlags::MS_REC, none).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let rootfs = dir.path().join("rootfs");
        test(&Stage { rootfs, dir });
    };
    thread::scope(|scope| scope.spawn(body).join().unwrap());
}

fn tmpfs(target: &str) -> Mount {
    mounted("tmpfs", "tmpfs", target, &["size=64k"])
}

fn mounted(kind: &str, source: &str, target: &str, options: &[&str]) -> Mount {
    Mount {
        kind: kind.to_owned(),
        source: source.to_owned(),
        target: target.to_owned(),
        options: options.iter().map(|&option| option.to_owned()).collect(),
    }
}

fn places(mounts: &[(String, String)]) -> Vec<&str> {
    mounts.iter().map(|(place, _)| place.as_str()).collect()
}

#[test]
fn mounts_go_below_one_another_and_go_as_one() {
    stage(|stage| {
        stage.mount(&[tmpfs(""), tmpfs("a/b"), tmpfs("/a/b/c")]).unwrap();
        assert_eq!(places(&stage.mounts()), ["", "/a/b", "/a/b/c"]);
        unmount_all(&stage.rootfs).unwrap();
        assert_eq!(stage.mounts(), []);
    });
}

#[test]
fn mounts_without_one_on_the_root_go_as_one_too() {
    stage(|stage| {
        stage.mount(&[tmpfs("a"), tmpfs("b")]).unwrap();
        assert_eq!(places(&stage.mounts()), ["", "/a", "/b"]);
        unmount_all(&stage.rootfs).unwrap();
        assert_eq!(stage.mounts(), []);
    });
}

#[test]
fn one_mount_that_fails_undoes_those_before_it() {
    stage(|stage| {
        let bad = mounted("nosuchfs", "none", "b", &[]);
        let err = stage.mount(&[tmpfs(""), tmpfs("a"), bad]).unwrap_err();
        let text = format!("{err:#}");
        assert!(text.contains("mount nosuchfs none on ") && text.contains("rootfs/b"), "{text}");
        assert_eq!(stage.mounts(), []);
        let unknown = mounted("tmpfs", "none", "b", &["X-containerd.mkdir.path=/x"]);
        let err = stage.mount(&[tmpfs("a"), unknown]).unwrap_err();
        assert_eq!(err.kind(), Kind::InvalidArgument);
        assert!(err.to_string().contains("X-containerd.mkdir.path"), "{err:#}");
        assert_eq!(stage.mounts(), []);
    });
}

#[test]
fn no_link_and_no_climb_leads_out_of_the_root() {
    stage(|stage| {
        fs::create_dir_all(stage.rootfs.join("real")).unwrap();
        fs::create_dir_all(stage.path("outside")).unwrap();
        symlink(stage.path("outside"), stage.rootfs.join("away")).unwrap();
        symlink("../../../../real", stage.rootfs.join("up")).unwrap();
        symlink("/real", stage.rootfs.join("back")).unwrap();
        // The absolute link leads to a place below the root that is not there.
        stage.mount(&[tmpfs("away/x")]).unwrap_err();
        assert_eq!(stage.mounts(), []);
        for target in ["up", "back/sub", "../../real/other"] {
            stage.mount(&[tmpfs(target)]).unwrap();
            let mounts = stage.mounts();
            assert!(places(&mounts)[1].starts_with("/real"), "{target}: {mounts:?}");
            unmount_all(&stage.rootfs).unwrap();
        }
        assert_eq!(fs::read_dir(stage.path("outside")).unwrap().count(), 0);
    });
}

#[test]
fn a_bind_below_the_root_gets_its_flags() {
    stage(|stage| {
        fs::create_dir_all(stage.path("source")).unwrap();
        let bind = mounted("bind", &stage.path("source"), "in/side", &["rbind", "ro"]);
        stage.mount(&[tmpfs(""), bind]).unwrap();
        let err = fs::write(stage.rootfs.join("in/side/file"), "").unwrap_err();
        assert_eq!(err.raw_os_error(), Some(libc::EROFS));
        fs::write(stage.rootfs.join("in/file"), "").unwrap();
    });
}

#[test]
fn an_overlay_of_many_layers_is_mounted_for_all_its_options() {
    stage(|stage| {
        let layers = stage.path(&format!("{}/snapshots", "long-name-of-a-root".repeat(6)));
        let layer = |n: usize| format!("{layers}/{n}/fs");
        for n in 0..60 {
            fs::create_dir_all(layer(n)).unwrap();
            fs::write(format!("{}/{n}", layer(n)), n.to_string()).unwrap();
        }
        let lower: Vec<_> = (0..60).map(layer).collect();
        let lower = format!("lowerdir={}", lower.join(":"));
        assert!(lower.len() > 2 * 4096, "{}", lower.len());
        stage.mount(&[mounted("overlay", "overlay", "", &[&lower])]).unwrap();
        assert_eq!(fs::read_dir(&stage.rootfs).unwrap().count(), 60);
        unmount_all(&stage.rootfs).unwrap();
        stage.mount(&[tmpfs(""), mounted("overlay", "overlay", "deep/er", &[&lower])]).unwrap();
        assert_eq!(fs::read_dir(stage.rootfs.join("deep/er")).unwrap().count(), 60);
    });
}

#[test]
fn an_image_is_mounted_and_its_device_goes_with_it() {
    stage(|stage| {
        let Some(image) = stage.ext4("image") else { return };
        stage.mount(&[mounted("ext4", &image, "", &["loop"])]).unwrap();
        fs::write(stage.rootfs.join("file"), "kept").unwrap();
        assert_eq!(devices_over(&image), 1);
        unmount_all(&stage.rootfs).unwrap();
        gone(&image);
        let read_only = mounted("ext4", &image, "", &["loop", "ro", "direct-io"]);
        stage.mount(std::slice::from_ref(&read_only)).unwrap();
        assert_eq!(fs::read_to_string(stage.rootfs.join("file")).unwrap(), "kept");
        fs::write(stage.rootfs.join("file"), "").unwrap_err();
        unmount_all(&stage.rootfs).unwrap();
        // A mount that fails keeps no device.
        let err = stage.mount(&[mounted("tmpfs2", &image, "", &["loop"])]).unwrap_err();
        assert!(format!("{err:#}").contains("ENODEV"), "{err:#}");
        gone(&image);
        let err = stage.mount(&[mounted("ext4", "/no/image", "", &["loop"])]).unwrap_err();
        assert!(format!("{err:#}").contains("open /no/image"), "{err:#}");
    });
}

fn devices_over(image: &str) -> usize {
    let devices = fs::read_dir("/sys/block").unwrap();
    let backing = devices.map(|device| {
        let file = device.unwrap().path().join("loop/backing_file");
        fs::read_to_string(file).unwrap_or_default()
    });
    backing.filter(|backing| backing.trim() == image).count()
}

/// The kernel frees a device a moment after its last user.
fn gone(image: &str) {
    until(&format!("the end of the device of {image}"), || devices_over(image) == 0);
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what} does not come");
        thread::yield_now();
    }
}
