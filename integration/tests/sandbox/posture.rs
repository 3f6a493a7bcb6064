//! What the processes that handle a guest's words may do, as `/proc` shows them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use integration::procs;
use integration::sandbox::Bed;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use shim_core::linux::Reaper;
use shim_sandbox::vm::qemu::Qemu;
use shim_sandbox::vm::virtiofsd::Virtiofsd;
use shim_sandbox::vm::{Files, Hypervisor, VmConfig, greeted};

use crate::support::{BOOT, run, word};

/// The lines of `/proc/PID/status` that tell what a process is allowed.
const KEYS: [&str; 10] = [
    "Uid",
    "Gid",
    "Groups",
    "CapInh",
    "CapPrm",
    "CapEff",
    "CapBnd",
    "CapAmb",
    "NoNewPrivs",
    "Seccomp",
];

const NONE: &str = "0000000000000000";

fn allowed(status: &Path) -> Vec<(String, String)> {
    let text = fs::read_to_string(status).unwrap();
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    let pairs = pairs.filter(|(key, _)| KEYS.contains(key));
    let words = |value: &str| value.split_whitespace().collect::<Vec<_>>().join(" ");
    pairs.map(|(key, value)| (key.to_owned(), words(value))).collect()
}

/// What is the same for all threads.
fn uniform(pid: i32) -> Vec<(String, String)> {
    let first = allowed(Path::new(&format!("/proc/{pid}/status")));
    for thread in fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten() {
        assert_eq!(allowed(&thread.path().join("status")), first, "{:?}", thread.path());
    }
    first
}

fn has(allowed: &[(String, String)], key: &str, value: &str) {
    let found = allowed.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
    assert_eq!(found, Some(value), "{key}: {allowed:?}");
}

/// The kinds of open descriptors, without numbers of their own.
fn descriptors(pid: i32) -> BTreeSet<String> {
    let all = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let targets = all.filter_map(|entry| fs::read_link(entry.path()).ok());
    let kinds = targets.map(|path| {
        let text = path.display().to_string();
        text.split(":[").next().unwrap_or_default().to_owned()
    });
    kinds.collect()
}

fn namespaces_differ(pid: i32, names: &[&str]) {
    for name in names {
        let of = |who: &str| fs::read_link(format!("/proc/{who}/ns/{name}")).unwrap();
        assert_ne!(of(&pid.to_string()), of("self"), "{name}");
    }
}

fn has_nothing_of_ours(pid: i32) {
    assert!(fs::read(format!("/proc/{pid}/environ")).unwrap().is_empty());
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().collect::<Vec<_>>()[4..6], ["0", "0"], "{core}");
}

async fn share(bed: &Bed, folder: &Path, scratch: &Path) -> (Virtiofsd, std::os::fd::OwnedFd) {
    let reaper = Reaper::default();
    Virtiofsd::start(&reaper, &bed.virtiofsd, Vec::new(), folder, scratch).await.unwrap()
}

#[test]
fn qemu_and_virtiofsd_have_what_they_need_and_no_more() {
    run(async |bed| {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("share");
        fs::create_dir(&folder).unwrap();
        let (virtiofsd, connection) = share(bed, &folder, dir.path()).await;
        let config = VmConfig { share: Some("share".into()), ..bed.config(&word()) };
        let files = Files { share: Some(connection), ..Files::default() };
        let qemu = Qemu { launch: bed.qemu.clone() };
        let mut booted = qemu.boot(&Reaper::default(), &config, files).await.unwrap();
        let greeted = greeted(&*booted.vm, &mut booted.line, &word(), BOOT).await;
        greeted.unwrap_or_else(|err| panic!("{err:#}; virtiofsd: {}", virtiofsd.said()));
        qemu_is_confined(booted.vm.pid().raw());
        virtiofsd_is_confined(virtiofsd.pid().raw());
    });
}

fn qemu_is_confined(pid: i32) {
    let allowed = uniform(pid);
    has(&allowed, "Uid", "65534 65534 65534 65534");
    has(&allowed, "Gid", "65534 65534 65534 65534");
    has(&allowed, "Groups", "");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        has(&allowed, set, NONE);
    }
    has(&allowed, "NoNewPrivs", "1");
    has(&allowed, "Seccomp", "2");
    namespaces_differ(pid, &["pid", "mnt", "net", "ipc", "uts"]);
    has_nothing_of_ours(pid);
    let expected = [
        "/dev/null",
        "/memfd:memory-backend-memfd (deleted)",
        "anon_inode",
        "anon_inode:[eventfd]",
        "pipe",
        "socket",
    ];
    let unexpected: Vec<_> = descriptors(pid)
        .into_iter()
        .filter(|kind| !expected.contains(&kind.as_str()) && !kind.starts_with("anon_inode"))
        .collect();
    assert!(unexpected.is_empty(), "{unexpected:?}");
    assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), Path::new("/"));
    let root = format!("/proc/{pid}/root");
    for hidden in ["proc", "sys", "root", "home", "var", "etc/passwd", "run"] {
        assert!(!Path::new(&root).join(hidden).exists(), "{hidden} is seen");
    }
    let network = fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap();
    assert_eq!(network.lines().count(), 3, "{network}");
}

fn virtiofsd_is_confined(parent: i32) {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
    let server: i32 = children.trim().parse().expect("one process serves");
    let allowed = uniform(server);
    has(&allowed, "NoNewPrivs", "1");
    has(&allowed, "Seccomp", "2");
    let effective = procs::status(server, "CapEff").unwrap();
    let effective = u64::from_str_radix(&effective, 16).unwrap();
    // CAP_SYS_ADMIN, CAP_SYS_MODULE, CAP_SYS_PTRACE, CAP_NET_ADMIN.
    for forbidden in [21, 16, 19, 12] {
        assert_eq!(effective >> forbidden & 1, 0, "capability {forbidden}");
    }
    namespaces_differ(server, &["pid", "mnt", "net", "ipc", "uts"]);
    has_nothing_of_ours(server);
    assert!(!Path::new(&format!("/proc/{server}/root/usr")).exists());
}

#[test]
fn what_is_mounted_on_a_share_later_is_served() {
    run(async |bed| {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("share");
        fs::create_dir_all(folder.join("later")).unwrap();
        let none: Option<&str> = None;
        mount(Some(&folder), &folder, none, MsFlags::MS_BIND, none).unwrap();
        mount(none, &folder, none, MsFlags::MS_PRIVATE, none).unwrap();
        mount(none, &folder, none, MsFlags::MS_SHARED, none).unwrap();
        let (virtiofsd, connection) = share(bed, &folder, dir.path()).await;
        let config = VmConfig { share: Some("share".into()), ..bed.config(&word()) };
        let files = Files { share: Some(connection), ..Files::default() };
        let qemu = Qemu { launch: bed.qemu.clone() };
        let mut booted = qemu.boot(&Reaper::default(), &config, files).await.unwrap();
        greeted(&*booted.vm, &mut booted.line, &word(), BOOT).await.unwrap();
        mount(Some("tmpfs"), &folder.join("later"), Some("tmpfs"), MsFlags::empty(), none).unwrap();
        fs::write(folder.join("later/file"), "seen").unwrap();
        let parent = virtiofsd.pid().raw();
        let children =
            fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
        let seen = format!("/proc/{}/root/later/file", children.trim());
        assert_eq!(fs::read_to_string(seen).unwrap(), "seen");
        drop((booted, virtiofsd));
        umount2(&folder.join("later"), MntFlags::MNT_DETACH).unwrap();
        umount2(&folder, MntFlags::MNT_DETACH).unwrap();
    });
}
