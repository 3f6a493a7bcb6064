//! `spec`: a `config.json` to begin with.

use std::{fs::File, io::Write, path::PathBuf};

use serde_json::{Value, json};
use shim_core::{Context, Error, Kind, Result};

/// Write a config.json to begin with
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The bundle: the directory that it goes into
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    bundle: PathBuf,
    /// Not offered: containers are made by root
    #[arg(long)]
    rootless: bool,
}

impl Arguments {
    pub(crate) fn run(&self) -> Result<u8> {
        if self.rootless {
            return Err(Error::new(Kind::Unsupported, "spec --rootless is not supported"));
        }
        let path = self.bundle.join("config.json");
        let text = serde_json::to_string_pretty(&spec())?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_spec() {
        let spec: oci_spec::runtime::Spec = serde_json::from_value(spec()).unwrap();
        assert_eq!(spec.mounts().as_ref().unwrap().len(), 7);
    }
}
