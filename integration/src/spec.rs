//! `config.json` for what `ctr` has no flag for: containerd's default, and changes to it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::image;

/// An OCI runtime spec.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec(Value);

/// The capabilities of a container that asks for nothing else.
pub const CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

impl Spec {
    /// What containerd would make for `args` on a root file system outside its snapshots.
    #[must_use]
    pub fn new(rootfs: &Path, cgroup: &str, args: &[&str]) -> Self {
        let namespaces = ["pid", "ipc", "uts", "mount", "network"];
        Self(json!({
            // The oldest runtime in use refuses what is newer.
            "ociVersion": "1.0.2",
            "root": { "path": rootfs },
            "process": {
                "args": args,
                "cwd": "/",
                "env": [image::PATH],
                "user": { "uid": 0, "gid": 0 },
                "noNewPrivileges": true,
                "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": 1024, "hard": 1024 }],
                "capabilities": {
                    "bounding": CAPABILITIES,
                    "effective": CAPABILITIES,
                    "permitted": CAPABILITIES,
                },
            },
            "mounts": mounts(),
            "linux": {
                "cgroupsPath": cgroup,
                "namespaces": namespaces.map(|kind| json!({ "type": kind })),
                "resources": {
                    "devices": [{ "allow": false, "access": "rwm" }],
                },
                "maskedPaths": [
                    "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys",
                    "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats",
                    "/proc/sched_debug", "/sys/firmware", "/proc/scsi",
                ],
                "readonlyPaths": [
                    "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
                ],
            },
        }))
    }

    /// Sets the value at a JSON pointer, such as `/linux/resources/pids`; the parent has to exist.
    ///
    /// # Panics
    /// When it does not, which is the test's own fault.
    #[must_use]
    pub fn set(mut self, pointer: &str, value: Value) -> Self {
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer starts with a slash");
        self.0.pointer_mut(parent).expect("the parent exists")[key] = value;
        self
    }

    /// Adds a value to the list at a JSON pointer.
    ///
    /// # Panics
    /// When there is no such list.
    #[must_use]
    pub fn push(mut self, pointer: &str, value: Value) -> Self {
        let list = self.0.pointer_mut(pointer).and_then(Value::as_array_mut);
        list.expect("the list exists").push(value);
        self
    }

    /// It as JSON.
    #[must_use]
    pub fn json(&self) -> &Value {
        &self.0
    }

    /// Writes it to a file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, file: &Path) -> Result<()> {
        fs::write(file, self.0.to_string()).with_context(|| format!("write {}", file.display()))
    }
}

fn mounts() -> Value {
    json!([
        mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        mount("/run", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
    ])
}

fn mount(target: &str, kind: &str, options: &[&str]) -> Value {
    json!({ "destination": target, "type": kind, "source": kind, "options": options })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_reaches_what_is_not_there_yet() {
        let spec = Spec::new(Path::new("/r"), "/c", &["true"])
            .set("/linux/resources/pids", json!({ "limit": 1 }))
            .push("/linux/namespaces", json!({ "type": "user" }));
        assert_eq!(spec.0["linux"]["resources"]["pids"]["limit"], 1);
        assert_eq!(spec.0["linux"]["namespaces"][5]["type"], "user");
    }
}
