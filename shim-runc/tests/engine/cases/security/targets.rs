//! Whatever is made or found for a container is made and found below its root.

use std::{fs, os::unix::fs::symlink, path::Path};

use serde_json::json;

use super::{cases, mount};
use crate::{Bench, bundle::Made};

/// A spec in which everything that makes something aims below one path.
fn aiming(made: Made, path: &str) -> Made {
    made.with(|spec| {
        mount(
            spec,
            json!({ "destination": format!("{path}/tmpfs/deep"), "type": "tmpfs",
            "source": "tmpfs" }),
        );
        mount(
            spec,
            json!({ "destination": format!("{path}/file"), "type": "bind",
            "source": "/etc/hostname", "options": ["bind", "ro"] }),
        );
        spec["linux"]["devices"] = json!([{ "path": format!("{path}/nodes/null"), "type": "c",
            "major": 1, "minor": 3 }]);
        spec["process"]["cwd"] = format!("{path}/work").into();
    })
}

fn assert_empty(directory: &Path, why: &str) {
    let left: Vec<_> = fs::read_dir(directory).unwrap().map(|one| one.unwrap().path()).collect();
    assert!(left.is_empty(), "{why}: {left:?}");
}

cases! {
    async fn made_outside_through_a_symlink_is_nothing(bench: &Bench) {
        let outside = tempfile::tempdir().unwrap();
        let up = "../".repeat(12);
        let path = outside.path().display();
        for link in [format!("{path}/new"), format!("{path}"), format!("{up}{path}/new"),
            format!("missing/../{up}{path}/x")] {
            let made = aiming(Made::script("true"), "/data");
            symlink(&link, made.rootfs().join("data")).unwrap();
            // It may be refused; nothing may come of it on the host.
            if let Ok(running) = made.create(bench).await {
                running.end().await;
            }
            assert_empty(outside.path(), &link);
        }
    }

    async fn made_outside_through_a_chain_of_symlinks_is_nothing(bench: &Bench) {
        let outside = tempfile::tempdir().unwrap();
        let made = aiming(Made::script("ls /a"), "/a/b");
        let rootfs = made.rootfs();
        symlink("b/../c", rootfs.join("a")).unwrap();
        symlink("/d", rootfs.join("b")).unwrap();
        symlink("/d/deep", rootfs.join("c")).unwrap();
        symlink(outside.path(), rootfs.join("d")).unwrap();
        if let Ok(running) = made.create(bench).await {
            running.end().await;
        }
        assert_empty(outside.path(), "a chain");
    }

    async fn made_outside_by_dots_is_nothing(bench: &Bench) {
        let outside = tempfile::tempdir().unwrap();
        let climbing = format!("/x/{}{}", "../".repeat(12), outside.path().display());
        let made = aiming(Made::script("true"), &climbing);
        // The kernel, and not the planner, takes the working directory's dots.
        let made = made.with(|spec| spec["process"]["cwd"] = "/tmp/../..".into());
        made.create(bench).await.unwrap().end().await;
        assert_empty(outside.path(), "dots");
        let inside = made.rootfs().join(outside.path().strip_prefix("/").unwrap());
        assert!(inside.join("nodes/null").exists() && inside.join("file").is_file());
    }

    async fn made_outside_by_masks_and_seals_is_nothing(bench: &Bench) {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "of the host").unwrap();
        let made = Made::script("cat /link/secret; true").with(|spec| {
            let link = [json!("/link"), json!("/link/secret")];
            spec["linux"]["maskedPaths"].as_array_mut().unwrap().extend(link.clone());
            spec["linux"]["readonlyPaths"].as_array_mut().unwrap().extend(link);
            mount(spec, json!({ "destination": "/link", "type": "none", "source": "none",
                "options": ["remount", "bind", "ro"] }));
        });
        symlink(outside.path(), made.rootfs().join("link")).unwrap();
        let why = made.refusal(bench).await;
        assert!(why.contains("remount /link: find the target: ENOENT"), "{why}");
        let text = fs::read_to_string(outside.path().join("secret")).unwrap();
        assert_eq!(text, "of the host");
    }
}
