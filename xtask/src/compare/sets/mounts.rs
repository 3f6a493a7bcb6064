//! Mounts: kinds, options, targets.

use serde_json::{Value, json};

use super::super::bundle::{Bundle, Host};

pub(super) fn bundles() -> Vec<Bundle> {
    let mut all = binds();
    all.extend(filesystems());
    all.extend(wholes());
    all.extend(targets());
    all.extend(cgroup());
    all
}

fn data() -> [Host; 3] {
    [Host::Folder("data"), Host::Folder("data/sub"), Host::File("data/file", "text")]
}

fn bind(name: &str, options: &[&str]) -> Bundle {
    let questions = ["read:/b/file", "create:/b/new", "list:/b"];
    Bundle::new(name, &questions).host(data()).mount("/b", "bind", "${dir}/data", options)
}

fn binds() -> Vec<Bundle> {
    vec![
        bind("mounts.bind", &["bind"]),
        bind("mounts.bind-read-only", &["bind", "ro"]),
        bind("mounts.bind-all-flags", &["rbind", "ro", "nosuid", "nodev", "noexec", "noatime"]),
        bind("mounts.bind-no-options", &[]),
        bind("mounts.bind-relatime", &["rbind", "relatime"]),
        bind("mounts.bind-strictatime", &["rbind", "strictatime"]),
        bind("mounts.bind-nodiratime", &["rbind", "nodiratime"]),
        bind("mounts.bind-nosymfollow", &["rbind", "nosymfollow"]),
        bind("mounts.bind-rw-dev-suid-exec", &["rbind", "rw", "dev", "suid", "exec"]),
        bind("mounts.bind-ro-then-rw", &["rbind", "ro", "rw"]),
        bind("mounts.bind-recursive-read-only", &["rbind", "rro"])
            .host([Host::Mounted("data/sub", &[])]),
        bind("mounts.bind-tree", &["rbind", "ro"]).host([Host::Mounted("data/sub", &[])]),
        bind("mounts.bind-top-of-tree", &["bind"]).host([Host::Mounted("data/sub", &[])]),
        bind("mounts.bind-keeps-flags-of-its-source", &["rbind"])
            .host([Host::Mounted("data", &["noexec", "nosuid"])]),
        bind("mounts.bind-changes-flags-of-its-source", &["rbind", "nodev"])
            .host([Host::Mounted("data", &["noexec", "nosuid"])]),
        bind("mounts.bind-of-read-only-source", &["rbind", "rw"])
            .host([Host::Mounted("data", &["ro"])]),
        bind("mounts.bind-unknown-option", &["rbind", "nosuchoption"]),
        Bundle::new("mounts.bind-relative-source", &["read:/b/file"]).host(data()).mount(
            "/b",
            "bind",
            "data",
            &["rbind"],
        ),
        Bundle::new("mounts.bind-type-none", &["read:/b/file"]).host(data()).mount(
            "/b",
            "none",
            "${dir}/data",
            &["rbind"],
        ),
        Bundle::new("mounts.bind-without-type", &["read:/b/file"])
            .host(data())
            .mounts(json!({ "destination": "/b", "source": "${dir}/data", "options": ["bind"] })),
        Bundle::new("mounts.bind-source-missing", &[]).mount("/b", "bind", "${dir}/no", &["bind"]),
        Bundle::new("mounts.bind-idmap", &["look:/b/file"]).host(data()).mounts(
            json!({ "destination": "/b", "type": "bind", "source": "${dir}/data",
                "options": ["bind", "idmap"],
                "uidMappings": [{ "containerID": 0, "hostID": 1000, "size": 10 }],
                "gidMappings": [{ "containerID": 0, "hostID": 2000, "size": 10 }] }),
        ),
        Bundle::new("mounts.bind-file", &["read:/etc/one", "look:/etc/one"])
            .host([Host::File("one", "1")])
            .mount("/etc/one", "bind", "${dir}/one", &["bind", "ro"]),
        Bundle::new("mounts.bind-host-dev", &["look:/dev/null", "look:/dev/ptmx"]).with(|spec| {
            spec["mounts"] = json!([
                    { "destination": "/proc", "type": "proc", "source": "proc" },
                    { "destination": "/dev", "type": "bind", "source": "/dev",
                      "options": ["bind", "ro"] }]);
        }),
    ]
}

fn filesystems() -> Vec<Bundle> {
    let tmpfs = |name: &str, options: &[&str]| {
        Bundle::new(name, &["look:/t", "create:/t/new"]).mount("/t", "tmpfs", "tmpfs", options)
    };
    vec![
        tmpfs("mounts.tmpfs", &["nosuid", "nodev", "mode=700", "size=1m"]),
        tmpfs("mounts.tmpfs-no-options", &[]),
        tmpfs("mounts.tmpfs-read-only", &["ro", "size=1m"]),
        tmpfs("mounts.tmpfs-owner", &["uid=1000", "gid=2000", "mode=0750", "nr_inodes=100"]),
        tmpfs("mounts.tmpfs-bad-option", &["nosuchoption=1"]),
        Bundle::new("mounts.tmpfs-copies-up", &["list:/etc", "look:/etc/passwd"]).mount(
            "/etc",
            "tmpfs",
            "tmpfs",
            &["tmpcopyup"],
        ),
        Bundle::new("mounts.tmpfs-keeps-mode-of-target", &["look:/tmp", "look:/closed"])
            .host([Host::Folder("rootfs/closed"), Host::Mode("rootfs/closed", 0o711)])
            .mount("/tmp", "tmpfs", "tmpfs", &["nosuid"])
            .mount("/closed", "tmpfs", "tmpfs", &["nosuid"]),
        Bundle::new("mounts.proc-with-options", &["list:/proc/1"]).mount(
            "/proc2",
            "proc",
            "proc",
            &["nosuid", "noexec", "nodev", "hidepid=2"],
        ),
        Bundle::new("mounts.sysfs-writable", &["write:/sys/kernel/uevent_seqnum"]).mount(
            "/sys2",
            "sysfs",
            "sysfs",
            &["nosuid", "noexec", "nodev"],
        ),
        Bundle::new("mounts.mqueue-elsewhere", &["look:/mq"]).mount(
            "/mq",
            "mqueue",
            "mqueue",
            &["nosuid", "noexec", "nodev"],
        ),
        Bundle::new("mounts.overlay", &["list:/o"])
            .host([
                Host::Folder("low"),
                Host::File("low/a", "a"),
                Host::Folder("up"),
                Host::Folder("index"),
            ])
            .mount(
                "/o",
                "overlay",
                "overlay",
                &["lowerdir=${dir}/low", "upperdir=${dir}/up", "workdir=${dir}/index"],
            ),
        Bundle::new("mounts.unknown-type", &[]).mount("/x", "nosuchfs", "none", &[]),
    ]
}

/// What is mounted where: at the root, at `/dev`, or nothing.
fn wholes() -> Vec<Bundle> {
    vec![
        Bundle::new(
            "mounts.root-read-only",
            &["create:/new", "create:/tmp/new", "create:/dev/new"],
        )
        .patch(json!({ "root": { "readonly": true } })),
        Bundle::new("mounts.none", &["list:/dev", "list:/proc"]).patch(json!({ "mounts": [] })),
        Bundle::new("mounts.no-dev", &["list:/dev"]).patch(json!({ "mounts": [
                { "destination": "/proc", "type": "proc", "source": "proc" }] })),
        Bundle::new("mounts.dev-read-only", &["create:/dev/new", "write:/dev/null"]).with(|spec| {
            spec["mounts"][1]["options"] = json!(["nosuid", "mode=755", "ro"]);
        }),
        Bundle::new("mounts.remount", &["create:/t/new"])
            .mount("/t", "tmpfs", "tmpfs", &["nosuid"])
            .mount("/t", "tmpfs", "tmpfs", &["remount", "ro", "nosuid"]),
        Bundle::new("mounts.twice-at-one-place", &["read:/b/file", "list:/b"])
            .host(data())
            .mount("/b", "tmpfs", "tmpfs", &[])
            .mount("/b", "bind", "${dir}/data", &["bind"]),
    ]
}

fn targets() -> Vec<Bundle> {
    let to = |name: &str, target: &str, questions: &[&str]| {
        Bundle::new(name, questions).mount(target, "tmpfs", "tmpfs", &["nosuid"])
    };
    let file = |name: &str, target: &str, questions: &[&str]| {
        Bundle::new(name, questions).host([Host::File("one", "1")]).mount(
            target,
            "bind",
            "${dir}/one",
            &["bind"],
        )
    };
    vec![
        to("mounts.target-missing", "/new/deep/place", &["look:/new", "look:/new/deep"]),
        to("mounts.target-relative", "new", &["look:/new"]),
        to("mounts.target-with-dots", "/work/../work/./x//y", &["look:/work/x/y"]),
        to("mounts.target-above-root", "/../../x", &["look:/x"]),
        to("mounts.target-symlink", "/way", &["look:/way", "look:/work"])
            .host([Host::Link("rootfs/way", "work")]),
        to("mounts.target-absolute-symlink", "/way/x", &["look:/way", "look:/work"])
            .host([Host::Link("rootfs/way", "/work")]),
        to("mounts.target-symlink-outside", "/way", &["look:/way"])
            .host([Host::Link("rootfs/way", "../../../etc")]),
        to("mounts.target-dangling-symlink", "/way/x", &["look:/way", "look:/gone"])
            .host([Host::Link("rootfs/way", "/gone")]),
        to("mounts.target-is-a-file", "/etc/passwd", &[]),
        to("mounts.target-root", "/", &[]),
        to("mounts.target-in-proc", "/proc/self", &[]),
        to("mounts.target-proc-twice", "/proc/sys", &[]),
        file("mounts.file-target-missing", "/new/deep/file", &["look:/new/deep/file"]),
        file("mounts.file-on-folder", "/work", &["look:/work"]),
        file("mounts.file-on-symlink", "/way", &["read:/way", "look:/way"])
            .host([Host::Link("rootfs/way", "etc/passwd")]),
        file("mounts.file-in-proc", "/proc/uptime", &["read:/proc/uptime"]),
        file("mounts.file-in-proc-forbidden", "/proc/version", &[]),
        Bundle::new("mounts.folder-on-file", &[]).host(data()).mount(
            "/etc/passwd",
            "bind",
            "${dir}/data",
            &["bind"],
        ),
        Bundle::new("mounts.root-is-a-symlink", &["list:/"])
            .host([Host::Link("way", "rootfs")])
            .patch(json!({ "root": { "path": "way" } })),
        Bundle::new("mounts.root-absolute", &["list:/"])
            .patch(json!({ "root": { "path": "${dir}/rootfs" } })),
        Bundle::new("mounts.proc-is-a-symlink", &["look:/proc"])
            .host([Host::Link("rootfs/proc2", "work")])
            .with(|spec| spec["mounts"][0]["destination"] = json!("/proc2")),
    ]
}

fn cgroup() -> Vec<Bundle> {
    let mount = |options: &[&str]| -> Value {
        json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
            "options": options })
    };
    let usual = ["nosuid", "noexec", "nodev", "relatime", "ro"];
    let questions = [
        "list:/sys/fs/cgroup",
        "look:/sys/fs/cgroup/cpu",
        "create:/sys/fs/cgroup/new",
        "mkdir:/sys/fs/cgroup/pids/new",
        "open:/sys/fs/cgroup/pids/pids.max",
    ];
    vec![
        Bundle::new("mounts.cgroup", &questions).mounts(mount(&usual)),
        Bundle::new("mounts.cgroup-namespace", &questions)
            .mounts(mount(&usual))
            .namespace("cgroup", None),
        Bundle::new("mounts.cgroup-writable", &questions)
            .mounts(mount(&["nosuid", "noexec", "nodev"]))
            .namespace("cgroup", None),
    ]
}
