//! `spec`: a `config.json` to begin with.

use std::{fs::File, io::Write, path::PathBuf};

use nix::unistd::{getegid, geteuid};
use serde_json::{Value, json};
use shim_core::{Context, Result};

/// Write a config.json to begin with
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The bundle: the directory that it goes into
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    bundle: PathBuf,
    /// One that a user can run, without the host's root
    #[arg(long)]
    rootless: bool,
}

impl Arguments {
    pub(crate) fn run(&self) -> Result<u8> {
        let path = self.bundle.join("config.json");
        let mut spec = spec();
        if self.rootless {
            make_rootless(&mut spec, geteuid().as_raw(), getegid().as_raw());
        }
        let text = serde_json::to_string_pretty(&spec)?;
        let file = File::options().write(true).create_new(true).open(&path);
        let written = file.and_then(|mut file| writeln!(file, "{text}"));
        written.with_context(|| format!("write {}", path.display()))?;
        Ok(0)
    }
}

/// What runc writes: a shell with a terminal, with three capabilities, in namespaces of its own.
fn spec() -> Value {
    let capabilities = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| {
        json!({
            "destination": destination, "type": kind, "source": source, "options": options,
        })
    };
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "terminal": true,
            "user": { "uid": 0, "gid": 0 },
            "args": ["sh"],
            "env": [
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"
            ],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
            },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
            "noNewPrivileges": true,
        },
        "root": { "path": "rootfs", "readonly": true },
        "hostname": "shim-runc",
        "mounts": [
            mount("/proc", "proc", "proc", &[]),
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", "devpts",
                &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("/dev/shm", "tmpfs", "shm",
                &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/sys/fs/cgroup", "cgroup", "cgroup",
                &["nosuid", "noexec", "nodev", "relatime", "ro"]),
        ],
        "linux": {
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": [
                { "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" },
                { "type": "mount" }, { "type": "cgroup" },
            ],
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi",
                "/sys/firmware",
            ],
            "readonlyPaths": [
                "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
            ],
        },
    })
}

/// Leaves out what a user can't have: a network and a cgroup of its own, and ids but the own one.
fn make_rootless(spec: &mut Value, uid: u32, gid: u32) {
    let map = |id: u32| json!([{ "containerID": 0, "hostID": id, "size": 1 }]);
    let linux = &mut spec["linux"];
    linux["namespaces"] =
        json!(["pid", "ipc", "uts", "mount", "user"].map(|kind| json!({ "type": kind })));
    (linux["uidMappings"], linux["gidMappings"]) = (map(uid), map(gid));
    linux["resources"] = json!({});
    let Some(mounts) = spec["mounts"].as_array_mut() else { return };
    mounts.retain(|mount| mount["destination"] != "/sys/fs/cgroup");
    for mount in mounts {
        if mount["destination"] == "/sys" {
            // A sysfs of its own takes a network of its own.
            mount["type"] = "none".into();
            mount["source"] = "/sys".into();
            mount["options"] = json!(["rbind", "nosuid", "noexec", "nodev", "ro"]);
        }
        if let Some(options) = mount["options"].as_array_mut() {
            options.retain(|option| option != "gid=5");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_has_no_more_than_a_user_can_have() {
        let mut spec = spec();
        make_rootless(&mut spec, 1000, 100);
        assert_eq!(spec["linux"]["gidMappings"][0]["hostID"], 100);
        let spec: oci_spec::runtime::Spec = serde_json::from_value(spec).unwrap();
        assert_eq!(spec.mounts().as_ref().unwrap().len(), 6);
    }

    #[test]
    fn it_is_a_spec() {
        let spec: oci_spec::runtime::Spec = serde_json::from_value(spec()).unwrap();
        assert_eq!(spec.mounts().as_ref().unwrap().len(), 7);
    }
}
