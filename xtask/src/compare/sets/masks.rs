//! Masked and read-only paths: what a program gets that opens them.

use serde_json::{Value, json};

use super::super::bundle::{Bundle, Host};

pub(super) fn bundles() -> Vec<Bundle> {
    let mut all = usual();
    all.extend(hidden());
    all.extend(sealed());
    all
}

fn usual() -> Vec<Bundle> {
    let usual = [
        "open:/proc/acpi",
        "open:/proc/kcore",
        "open:/proc/keys",
        "open:/proc/timer_list",
        "open:/sys/firmware",
        "open:/proc/scsi",
        "look:/proc/keys",
        "follow:/proc/acpi",
        "write:/proc/keys",
        "create:/proc/acpi/new",
        "write:/proc/sys/kernel/shmmax",
        "write:/proc/sysrq-trigger",
        "open:/proc/bus",
        "read:/proc/sys/kernel/ostype",
        "run:/bin/busybox chmod 600 /proc/keys",
    ];
    vec![
        Bundle::new("masks.usual", &usual),
        Bundle::new("masks.usual-privileged", &usual).with(|spec| {
            let all = json!(["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE", "CAP_SYS_RAWIO", "CAP_FOWNER"]);
            for set in ["bounding", "effective", "permitted"] {
                spec["process"]["capabilities"][set] = all.clone();
            }
        }),
        Bundle::new("masks.both", &["open:/folder", "create:/folder/new"])
            .host(folder())
            .linux(json!({ "maskedPaths": ["/folder"], "readonlyPaths": ["/folder"] })),
        Bundle::new("masks.without-proc", &["list:/proc"]).with(|spec| {
            let mounts = spec["mounts"].as_array_mut().expect("the base has mounts");
            mounts.retain(|mount| mount["type"] != "sysfs");
        }),
    ]
}

fn folder() -> [Host; 2] {
    [Host::Folder("rootfs/folder"), Host::File("rootfs/folder/file", "text")]
}

fn hidden() -> Vec<Bundle> {
    let hidden = |name: &str, paths: Value, questions: &[&str]| {
        Bundle::new(&format!("masks.{name}"), questions).linux(json!({ "maskedPaths": paths }))
    };
    vec![
        hidden("none", json!([]), &["open:/proc/timer_list", "open:/proc/acpi"]),
        hidden("missing", json!(["/not/there", "/proc/not/there"]), &["look:/not"]),
        hidden("folder-of-the-image", json!(["/folder"]), &["open:/folder", "create:/folder/new"])
            .host(folder()),
        hidden(
            "file-of-the-image",
            json!(["/folder/file"]),
            &["open:/folder/file", "write:/folder/file", "look:/folder/file"],
        )
        .host(folder()),
        hidden("through-a-symlink", json!(["/way"]), &["open:/way", "open:/folder", "look:/way"])
            .host(folder())
            .host([Host::Link("rootfs/way", "/folder")]),
        hidden("relative", json!(["folder"]), &["open:/folder"]).host(folder()),
        hidden("mount", json!(["/t"]), &["open:/t", "create:/t/new"]).mount(
            "/t",
            "tmpfs",
            "tmpfs",
            &[],
        ),
        hidden("twice", json!(["/folder", "/folder"]), &["open:/folder"]).host(folder()),
    ]
}

fn sealed() -> Vec<Bundle> {
    let sealed = |name: &str, paths: Value, questions: &[&str]| {
        Bundle::new(&format!("masks.{name}"), questions).linux(json!({ "readonlyPaths": paths }))
    };
    vec![
        sealed("read-only-none", json!([]), &["write:/proc/sys/kernel/shmmax"]),
        sealed(
            "read-only-folder",
            json!(["/folder"]),
            &["create:/folder/new", "write:/folder/file"],
        )
        .host(folder()),
        sealed(
            "read-only-file",
            json!(["/folder/file"]),
            &["create:/folder/new", "write:/folder/file"],
        )
        .host(folder()),
        sealed("read-only-missing", json!(["/not/there"]), &["look:/not"]),
        sealed("read-only-keeps-flags", json!(["/t"]), &["create:/t/new"]).mount(
            "/t",
            "tmpfs",
            "tmpfs",
            &["nosuid", "noexec", "nodev"],
        ),
        sealed("read-only-tree", json!(["/b"]), &["create:/b/new", "create:/b/sub/new"])
            .host([Host::Folder("data"), Host::Folder("data/sub"), Host::Mounted("data/sub", &[])])
            .mount("/b", "bind", "${dir}/data", &["rbind"]),
    ]
}
