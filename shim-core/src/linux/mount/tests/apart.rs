//! Mounts that are made for later ones: images, layers of images, and what is named by placeholders.

use std::os::unix::fs::MetadataExt;

use nix::{sys::stat::Mode, unistd::mkfifo};

use super::*;

/// An erofs image with one file of that name and content; more arguments are for mkfs.erofs.
fn erofs(stage: &Stage, name: &str, arguments: &[&str]) -> Option<String> {
    let known = fs::read_to_string("/proc/filesystems").unwrap();
    if !known.lines().any(|line| line.trim() == "erofs") {
        println!("skipped: the kernel has no erofs");
        return None;
    }
    let (image, folder) = (stage.path(&format!("{name}.erofs")), stage.path(&format!("{name}.d")));
    fs::create_dir_all(&folder).unwrap();
    fs::write(format!("{folder}/{name}"), name.repeat(9000)).unwrap();
    fs::write(format!("{folder}/all"), name).unwrap();
    let made = Command::new("mkfs.erofs").args(arguments).args([&image, &folder]).output();
    if !made.is_ok_and(|made| made.status.success()) {
        println!("skipped: no mkfs.erofs that takes {arguments:?}");
        return None;
    }
    Some(image)
}

fn erofs_mount(image: &str, more: &[&str]) -> Mount {
    mounted("erofs", image, "", &[&["ro", "loop"], more].concat())
}

/// An overlay with its upper layer on the first mount, as containerd's erofs snapshotter asks.
fn overlay_on_first(lower: &str) -> Mount {
    let options = [
        "X-containerd.mkdir.path={{ mount 0 }}/upper:0755",
        "X-containerd.mkdir.path={{ mount 0 }}/work:0755:0:0",
        "workdir={{ mount 0 }}/work",
        "upperdir={{ mount 0 }}/upper",
        lower,
    ];
    mounted("format/mkdir/overlay", "overlay", "", &options)
}

fn check_nothing_left(stage: &Stage) {
    assert_eq!(stage.mounts(), []);
    // As containerd does: it has to be empty then.
    fs::remove_dir(&stage.rootfs).unwrap();
}

#[test]
fn an_overlay_has_its_upper_layer_on_an_image() {
    stage(|stage| {
        let Some(image) = stage.ext4("image") else { return };
        let lower = stage.path("lower");
        fs::create_dir_all(&lower).unwrap();
        fs::write(format!("{lower}/low"), "").unwrap();
        let list = [
            mounted("ext4", &image, "", &["rw", "loop"]),
            mounted("bind", &lower, "", &["ro", "rbind"]),
            overlay_on_first("lowerdir={{ mount 1 }}"),
        ];
        stage.mount(&list).unwrap();
        assert!(stage.rootfs.join("low").exists());
        fs::write(stage.rootfs.join("high"), "kept").unwrap();
        assert_eq!(fs::metadata(&stage.rootfs).unwrap().mode() & 0o777, 0o755);
        assert_eq!(places(&stage.mounts()), ["", "/0", "/1", ""]);
        unmount_all(&stage.rootfs).unwrap();
        check_nothing_left(stage);
        gone(&image);
        assert!(!Path::new(&lower).join("high").exists());
        // The same container once more.
        stage.mount(&list).unwrap();
        assert_eq!(fs::read_to_string(stage.rootfs.join("high")).unwrap(), "kept");
        unmount_all(&stage.rootfs).unwrap();
        check_nothing_left(stage);
        gone(&image);
    });
}

#[test]
fn layers_are_erofs_images() {
    stage(|stage| {
        let layers: Option<Vec<String>> =
            ["one", "two", "three"].iter().map(|name| erofs(stage, name, &[])).collect();
        let Some(layers) = layers else { return };
        let mut list = vec![tmpfs("")];
        list.extend(layers.iter().map(|layer| erofs_mount(layer, &[])));
        list.push(overlay_on_first("lowerdir={{ overlay 1 3 }}"));
        stage.mount(&list).unwrap();
        let read = |name| fs::read_to_string(stage.rootfs.join(name)).unwrap();
        assert_eq!((read("all"), read("three")), ("one".to_owned(), "three".repeat(9000)));
        fs::write(stage.rootfs.join("new"), "").unwrap();
        unmount_all(&stage.rootfs).unwrap();
        *list.last_mut().unwrap() = overlay_on_first("lowerdir={{ overlay 3 1 }}");
        stage.mount(&list).unwrap();
        assert_eq!(read("all"), "three");
        unmount_all(&stage.rootfs).unwrap();
        check_nothing_left(stage);
        layers.iter().for_each(|layer| gone(layer));
        // One alone is the root filesystem, or is bound there.
        stage.mount(&[erofs_mount(&layers[0], &[])]).unwrap();
        assert_eq!(stage.mounts(), [(String::new(), "erofs".to_owned())]);
        unmount_all(&stage.rootfs).unwrap();
        let bind = mounted("format/bind", "{{ mount 0 }}", "", &["ro", "rbind"]);
        stage.mount(&[erofs_mount(&layers[1], &[]), bind]).unwrap();
        assert_eq!(read("all"), "two");
        unmount_all(&stage.rootfs).unwrap();
        check_nothing_left(stage);
    });
}

#[test]
fn an_erofs_image_has_its_data_in_others() {
    stage(|stage| {
        let blob = stage.path("blob");
        let arguments = [&format!("--blobdev={blob}"), "--chunksize=4096"];
        let Some(image) = erofs(stage, "thin", &arguments) else { return };
        assert!(fs::metadata(&blob).unwrap().len() > 9000, "the data is not in the blob");
        let device = format!("device={blob}");
        let content = || fs::read_to_string(stage.rootfs.join("thin")).unwrap();
        stage.mount(&[erofs_mount(&image, &[&device])]).unwrap();
        assert_eq!(content(), "thin".repeat(9000));
        unmount_all(&stage.rootfs).unwrap();
        // As on a kernel that takes no files.
        let options = Options::parse(&erofs_mount(&image, &[&device]).options).unwrap();
        erofs::by_loop_devices(&image, &options, &stage.rootfs).unwrap();
        assert_eq!(content(), "thin".repeat(9000));
        assert_eq!((devices_over(&image), devices_over(&blob)), (1, 1));
        unmount_all(&stage.rootfs).unwrap();
        gone(&image);
        gone(&blob);
        let err = stage.mount(&[erofs_mount(&image, &["device=/no/blob"])]).unwrap_err();
        assert!(format!("{err:#}").contains(&format!("mount erofs {image}")), "{err:#}");
        check_nothing_left(stage);
        gone(&image);
    });
}

#[test]
fn more_devices_than_a_page_names_go_by_way_of_loop_devices() {
    stage(|stage| {
        let Some(image) = erofs(stage, "one", &[]) else { return };
        // Nothing that can be mounted, but the way there is seen.
        let devices: Vec<String> = (0..90)
            .map(|n| format!("device={}/{n}", stage.path(&"a-long-name".repeat(9))))
            .collect();
        let devices: Vec<&str> = devices.iter().map(String::as_str).collect();
        let err = stage.mount(&[erofs_mount(&image, &devices)]).unwrap_err();
        let text = format!("{err:#}");
        assert!(text.contains("by way of loop devices: open ") && text.contains("/0: "), "{text}");
        gone(&image);
    });
}

#[test]
fn more_layers_than_a_page_names_are_named_in_short() {
    stage(|stage| {
        let mut list = vec![tmpfs(""); 201];
        list.push(overlay_on_first("lowerdir={{ overlay 1 200 }}"));
        stage.mount(&list).unwrap();
        fs::write(stage.rootfs.join("new"), "").unwrap();
        unmount_all(&stage.rootfs).unwrap();
        check_nothing_left(stage);
        let err = stage.mount(&vec![mounted("format/bind", "/", "", &[]); 257]).unwrap_err();
        assert!(err.to_string().contains("over 255"), "{err}");
    });
}

#[test]
fn all_that_is_announced_is_known() {
    for each in TAKEN.split(',') {
        let kind = each.replace('*', "bind");
        let (prefixes, kind) = prefix::split(&kind).unwrap();
        let is_known = prefixes.len() == 1 || [erofs::KIND, prefix::DEVICE].contains(&kind);
        assert!(is_known, "{each}");
    }
}

#[test]
fn a_device_is_there_for_the_next_mount() {
    stage(|stage| {
        let Some(image) = stage.ext4("image") else { return };
        for from in ["{{ mount 0 }}", "{{ source 0 }}"] {
            let list = [mounted("loop", &image, "", &[]), mounted("format/ext4", from, "", &[])];
            stage.mount(&list).unwrap();
            assert_eq!(devices_over(&image), 1);
            assert!(stage.rootfs.join("lost+found").exists());
            unmount_all(&stage.rootfs).unwrap();
            check_nothing_left(stage);
            gone(&image);
        }
        let err = stage.mount(&[mounted("loop", &image, "", &[])]).unwrap_err();
        assert_eq!(err.kind(), Kind::InvalidArgument);
        gone(&image);
    });
}

#[test]
fn what_fails_in_between_undoes_what_came_before() {
    stage(|stage| {
        let Some(image) = stage.ext4("image") else { return };
        let first = mounted("ext4", &image, "", &["loop"]);
        for (last, expected) in [
            (mounted("format/bind", "{{ mount 3 }}", "", &["rbind"]), "there is no mount 3"),
            (mounted("format/bind", "{{ mount 0 }}/no", "", &["rbind"]), "ENOENT"),
            (mounted("mkdir/bind", "/", "", &["X-containerd.mkdir.path=/x/y"]), "make /x/y: it is"),
            (mounted("mkdir/bind", "/", "", &["X-containerd.mkdir.mode=1"]), "it is unknown"),
            (mounted("mkfs/ext4", &image, "", &[]), "\"mkfs\" asks for is not for a shim"),
            (mounted("format/nosuchfs", "x", "", &[]), "no such filesystem: ENODEV"),
        ] {
            let err = format!("{:#}", stage.mount(&[first.clone(), last]).unwrap_err());
            assert!(err.contains(expected), "{err}");
            assert_eq!(stage.mounts(), [], "{err}");
            gone(&image);
        }
        // Only the type's prefix makes an option of it.
        let option = "X-containerd.mkdir.path={{ mount 0 }}/x";
        let err = stage.mount(&[first.clone(), mounted("format/bind", "/", "", &[option])]);
        assert!(format!("{:#}", err.unwrap_err()).contains("is not for a shim"));
        check_nothing_left(stage);
    });
}

#[test]
fn what_is_half_made_is_undone_by_somebody_else() {
    stage(|stage| {
        // Opening it hangs until somebody writes there.
        let fifo = stage.path("fifo");
        mkfifo(fifo.as_str(), Mode::S_IRWXU).unwrap();
        let list = [
            tmpfs(""),
            mounted("ext4", &fifo, "", &["ro", "loop"]),
            overlay_on_first("lowerdir={{ mount 1 }}"),
        ];
        thread::scope(|scope| {
            // In the mount namespace of the thread that makes it.
            let made = scope.spawn(|| stage.mount(&list));
            until("the place of the second mount", || stage.rootfs.join("1").exists());
            assert_eq!(places(&stage.mounts()), ["", "/0"]);
            // As `delete` does after a shim's death.
            unmount_all(&stage.rootfs).unwrap();
            check_nothing_left(stage);
            drop(File::options().write(true).open(&fifo).unwrap());
            made.join().unwrap().unwrap_err();
        });
        assert_eq!(stage.mounts(), []);
    });
}

#[test]
fn the_directorys_own_content_is_not_covered_for_good() {
    stage(|stage| {
        fs::create_dir_all(stage.rootfs.join("sub")).unwrap();
        fs::write(stage.rootfs.join("own"), "").unwrap();
        let bind = mounted("format/bind", "{{ mount 0 }}", "sub", &["rbind"]);
        stage.mount(&[tmpfs(""), bind]).unwrap();
        let mounts = stage.mounts();
        assert_eq!(places(&mounts), ["", "/0", "/ground", "/ground/sub", "", "/sub"]);
        assert!(stage.rootfs.join("own").exists());
        assert!(!stage.rootfs.join("0").exists());
        unmount_all(&stage.rootfs).unwrap();
        assert_eq!(stage.mounts(), []);
        assert!(stage.rootfs.join("own").exists());
    });
}

#[test]
fn what_is_in_use_goes_out_of_sight_with_all_that_is_below() {
    stage(|stage| {
        let bind = mounted("format/bind", "{{ mount 0 }}", "", &["rbind"]);
        stage.mount(&[tmpfs(""), bind]).unwrap();
        let user = File::create(stage.rootfs.join("used")).unwrap();
        unmount_all(&stage.rootfs).unwrap();
        check_nothing_left(stage);
        drop(user);
    });
}
