//! Specs as containerd writes them, and what a guest gets.

use std::path::Path;

use serde_json::json;

use super::*;

/// As CRI writes it for a container of a pod.
fn member() -> Value {
    json!({
        "ociVersion": "1.1.0",
        "root": {"path": "/run/c/rootfs", "readonly": true},
        "process": {"args": ["sh"], "cwd": "/", "apparmorProfile": "cri-containerd.apparmor.d"},
        "annotations": {"io.kubernetes.cri.container-type": "container"},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev/shm", "type": "bind", "source": "/run/c/shm", "options": ["rbind"]},
            {"destination": "/data", "type": "bind", "source": "/usr", "options": ["rbind", "ro"]},
        ],
        "linux": {
            "cgroupsPath": "kubepods.slice:cri:c1",
            "resources": {"cpu": {"shares": 2, "cpus": "0-1"}, "hugepageLimits": []},
            "namespaces": [
                {"type": "pid"}, {"type": "mount"},
                {"type": "ipc", "path": "/proc/1/ns/ipc"},
                {"type": "uts", "path": "/proc/1/ns/uts"},
                {"type": "network", "path": "/proc/1/ns/net"},
            ],
        },
    })
}

fn prepared(spec: Value) -> Prepared {
    let role = role(&spec);
    prepare(spec, Around { id: "c1", role, has_own_files: true, places: &Places::default() })
        .unwrap()
}

fn refused(spec: Value) -> String {
    let role = role(&spec);
    format!(
        "{:#}",
        prepare(spec, Around { id: "c1", role, has_own_files: true, places: &Places::default() })
            .unwrap_err()
    )
}

#[test]
fn a_member_of_a_pod_shares_what_the_guest_is() {
    let made = prepared(member());
    let kinds: Vec<_> = made.spec["linux"]["namespaces"]
        .as_array()
        .unwrap()
        .iter()
        .map(|n| text(n, "type"))
        .collect();
    assert_eq!(kinds, ["pid", "mount"]);
    assert_eq!(made.pod.netns.as_deref(), Some("/proc/1/ns/net"));
    assert_eq!(made.spec["root"]["path"], "rootfs");
    assert_eq!(made.spec["root"]["readonly"], true);
    assert_eq!(made.spec["linux"]["cgroupsPath"], "/shim/c1");
    assert_eq!(made.spec["linux"]["resources"], json!({"cpu": {"shares": 2}}));
    assert!(made.spec["process"].get("apparmorProfile").is_none());
}

#[test]
fn files_of_the_host_get_their_places_in_the_share() {
    let made = prepared(member());
    let usr = Path::new("/usr").canonicalize().unwrap();
    assert_eq!(made.volumes, [Volume { source: usr, read_only: true }]);
    let source = |destination: &str| {
        let mounts = made.spec["mounts"].as_array().unwrap();
        let mount = mounts.iter().find(|mount| text(mount, "destination") == destination);
        mount.map(|mount| text(mount, "source").to_owned())
    };
    assert_eq!(source("/data").unwrap(), "/run/shim/share/c1/v0");
    assert_eq!(source("/dev/shm").unwrap(), "/run/shim/shm");
    assert_eq!(source("/etc/resolv.conf").unwrap(), "/run/shim/files/resolv.conf");
    assert_eq!(source("/proc").unwrap(), "proc");
}

#[test]
fn the_pause_container_says_what_the_pod_is() {
    let mut spec = member();
    spec["annotations"]["io.kubernetes.cri.container-type"] = json!("sandbox");
    spec["hostname"] = json!("pod");
    spec["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1", "kernel.shm_rmid_forced": "1"});
    let made = prepared(spec);
    assert_eq!(made.pod.hostname.as_deref(), Some("pod"));
    assert_eq!(made.pod.sysctls.len(), 2);
    assert_eq!(made.spec["linux"]["sysctl"], json!({}));
    assert!(made.spec.get("hostname").is_none());
}

#[test]
fn what_is_the_hosts_alone_is_refused_by_name() {
    let mut spec = member();
    spec["linux"]["namespaces"].as_array_mut().unwrap().pop();
    assert!(refused(spec).contains("the host's network"));
    let mut spec = member();
    spec["linux"]["namespaces"][0]["path"] = json!("/proc/1/ns/pid");
    assert!(refused(spec).contains("pid at /proc/1/ns/pid"));
    let mut spec = member();
    spec["hooks"] = json!({"prestart": [{"path": "/x"}], "poststop": []});
    assert!(refused(spec).contains("hooks.prestart"));
    let mut spec = member();
    spec["linux"]["devices"] = json!([{"path": "/dev/null", "type": "c", "major": 1, "minor": 3},
               {"path": "/dev/sda", "type": "b", "major": 8, "minor": 0}]);
    assert!(refused(spec).contains("/dev/sda"));
    let mut spec = member();
    spec["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
    assert!(refused(spec).contains("net.ipv4.ip_forward"));
}

#[test]
fn the_host_itself_is_no_volume_by_any_name() {
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("link");
    std::os::unix::fs::symlink("/proc/self", &link).unwrap();
    for source in ["/", "/proc", "/sys/fs", "/dev", link.to_str().unwrap()] {
        let mut spec = member();
        spec["mounts"][2]["source"] = json!(source);
        assert!(refused(spec).contains("the host itself"), "{source}");
    }
    let mut spec = member();
    spec["mounts"][2] = json!({"destination": "/x", "type": "nfs", "source": "a:/b"});
    assert!(refused(spec).contains("nfs"));
}
