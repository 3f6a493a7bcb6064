//! Devices and consoles that an image has put something else in the place of.

use std::{fs, os::unix::fs::symlink};

use serde_json::json;
use shim_core::{Container, Streams};

use super::{cases, without_mounts};
use crate::{
    Bench,
    bundle::{Made, read_all},
};

/// A container whose `/dev` is the image's own.
fn with_own_dev(script: &str) -> Made {
    Made::script(script).with(|spec| without_mounts(spec, "/dev"))
}

async fn refused_terminal(made: Made, bench: &Bench) -> String {
    let made = made.with(|spec| spec["process"]["terminal"] = true.into());
    format!("{:#}", made.create_with(bench, Streams::Terminal).await.unwrap_err())
}

/// What a container prints on its terminal.
async fn with_terminal(made: Made, bench: &Bench) -> String {
    let mut running = made.create_with(bench, Streams::Terminal).await.unwrap();
    let terminal = running.init.as_mut().unwrap().terminal.take().unwrap().into_master().unwrap();
    running.container.start().await.unwrap();
    running.wait().await;
    let printed = read_all(terminal);
    running.end_quietly().await;
    printed
}

/// The places of mounts in an image's own `/dev`.
fn make_places(made: &Made) {
    for directory in ["pts", "shm", "mqueue"] {
        fs::create_dir(made.rootfs().join("dev").join(directory)).unwrap();
    }
}

cases! {
    async fn device_directory_behind_a_symlink_stays_inside(bench: &Bench) {
        let outside = tempfile::tempdir().unwrap();
        let made = with_own_dev("ls /dev | wc -l");
        fs::remove_dir(made.rootfs().join("dev")).unwrap();
        symlink(outside.path(), made.rootfs().join("dev")).unwrap();
        // The link leads to a path of the container, made there; the host's stays empty.
        let made = made.create(bench).await.map(|running| (made, running));
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
        let (made, running) = made.unwrap();
        let inside = made.rootfs().join(outside.path().strip_prefix("/").unwrap());
        assert!(inside.join("null").exists());
        running.end().await;
    }

    async fn device_directory_that_is_a_file_is_refused(bench: &Bench) {
        let made = with_own_dev("true");
        fs::remove_dir(made.rootfs().join("dev")).unwrap();
        fs::write(made.rootfs().join("dev"), "a file\n").unwrap();
        let why = made.refusal(bench).await;
        assert!(why.contains("device /dev/null") && why.contains("ENOTDIR"), "{why}");
        assert_eq!(fs::read_to_string(made.rootfs().join("dev")).unwrap(), "a file\n");
    }

    async fn device_path_can_not_climb(bench: &Bench) {
        let outside = tempfile::tempdir().unwrap();
        let up = "../".repeat(12);
        let made = Made::script("ls -d /link").with(|spec| {
            let climbing = format!("/dev/{up}{}/null", outside.path().display());
            spec["linux"]["devices"] = json!([
                { "path": climbing, "type": "c", "major": 1, "minor": 3 },
                { "path": "/link/zero", "type": "c", "major": 1, "minor": 5 },
                { "path": format!("{up}link/pipe"), "type": "p", "major": 0, "minor": 0 },
            ]);
        });
        symlink(format!("{up}{}", outside.path().display()), made.rootfs().join("link")).unwrap();
        made.output(bench).await;
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
        let inside = made.rootfs().join(outside.path().strip_prefix("/").unwrap());
        assert_eq!(fs::read_dir(inside).unwrap().count(), 3);
    }

    async fn console_behind_a_symlink_is_not_followed(bench: &Bench) {
        let made = Made::script("stat -c %t,%T /dev/console; stat -c %F /victim").with(|spec| {
            spec["process"]["terminal"] = true.into();
            spec["mounts"].as_array_mut().unwrap().retain(|one| one["destination"] != "/dev");
        });
        make_places(&made);
        fs::write(made.rootfs().join("victim"), "").unwrap();
        symlink("/victim", made.rootfs().join("dev/console")).unwrap();
        assert_eq!(with_terminal(made, bench).await, "88,0\r\nregular empty file\r\n");
    }

    async fn console_comes_from_a_multiplexer_alone(bench: &Bench) {
        for other in ["a file", "a device"] {
            let made = Made::script("true").with(|spec| {
                let mounts = spec["mounts"].as_array_mut().unwrap();
                mounts.retain(|one| one["destination"] != "/dev/pts" && one["destination"] != "/dev");
            });
            make_places(&made);
            // A file of the image in its place is no terminal, nor is another device.
            match other {
                "a file" => fs::write(made.rootfs().join("dev/pts/ptmx"), "").unwrap(),
                _ => symlink("/dev/full", made.rootfs().join("dev/pts/ptmx")).unwrap(),
            }
            let why = refused_terminal(made, bench).await;
            // Where the image lies on a filesystem without devices, the kernel is there first.
            let denied = other == "a device" && why == "open a terminal: EACCES: Permission denied";
            let verified = why == "open a terminal: verify: ENODEV: No such device";
            assert!(verified || denied, "{other}: {why}");
        }
    }

    async fn console_is_the_terminal_whatever_stands_at_its_path(bench: &Bench) {
        // A link of the image at the multiplexer's old place, and a file where the first terminal
        // will be: the one is replaced, the other covered by the container's own devpts.
        let made = Made::script("tty; stat -c %t,%T /dev/console; readlink /dev/ptmx").with(|spec| {
            spec["process"]["terminal"] = true.into();
            spec["mounts"].as_array_mut().unwrap().retain(|one| one["destination"] != "/dev");
        });
        make_places(&made);
        symlink("/proc/sysrq-trigger", made.rootfs().join("dev/ptmx")).unwrap();
        symlink("/proc/sysrq-trigger", made.rootfs().join("dev/pts/0")).unwrap();
        let printed = with_terminal(made, bench).await;
        assert_eq!(printed, "/dev/pts/0\r\n88,0\r\npts/ptmx\r\n");
    }
}
