//! The OCI spec of a container: containerd's defaults for Linux, and changes to them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::seccomp;

/// The length of the period that a share of a CPU is counted in, in microseconds.
pub const CPU_PERIOD: u64 = 100_000;

/// The search path of a container whose image names none.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What containers may do without being asked, the same 14 as with containerd and Docker.
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

const MASKED_PATHS: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
    "/proc/scsi",
];

const READONLY_PATHS: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Who a process runs as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary group ids.
    pub additional_gids: Vec<u32>,
}

/// A host path that a container sees too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindMount {
    /// The path on the host, absolute.
    pub source: PathBuf,
    /// The path in the container, absolute.
    pub destination: PathBuf,
    /// Whether the container may only read it.
    pub read_only: bool,
}

impl BindMount {
    /// Reads `source:destination`, with `:ro` or `:rw` behind it if wanted.
    pub fn parse(text: &str) -> Result<Self> {
        let parts: Vec<&str> = text.split(':').collect();
        let (source, destination, read_only) = match parts[..] {
            [source, destination] | [source, destination, "rw"] => (source, destination, false),
            [source, destination, "ro"] => (source, destination, true),
            _ => bail!("mount {text:?}: expected source:destination or source:destination:ro"),
        };
        let destination = PathBuf::from(destination);
        if !destination.is_absolute() {
            bail!("mount {text:?}: the path in the container must be absolute");
        }
        let source =
            fs::canonicalize(source).with_context(|| format!("mount {text:?}: {source}"))?;
        Ok(Self { source, destination, read_only })
    }
}

/// Makes a spec: containerd's default one, changed step by step.
#[derive(Clone, Debug)]
pub struct SpecBuilder {
    spec: Value,
}

impl SpecBuilder {
    /// containerd's default spec for that container, with no arguments yet.
    pub fn new(namespace: &str, id: &str) -> Self {
        let spec = json!({
            "ociVersion": "1.1.0",
            "process": {
                "user": { "uid": 0, "gid": 0 },
                "args": [],
                "env": [DEFAULT_PATH],
                "cwd": "/",
                "noNewPrivileges": true,
                "capabilities": {
                    "bounding": CAPABILITIES,
                    "effective": CAPABILITIES,
                    "permitted": CAPABILITIES,
                },
                "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
            },
            "root": { "path": "rootfs" },
            "mounts": default_mounts(),
            "linux": {
                "cgroupsPath": format!("/{namespace}/{id}"),
                "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
                "namespaces": [
                    { "type": "pid" }, { "type": "ipc" }, { "type": "uts" },
                    { "type": "mount" }, { "type": "network" },
                ],
                "maskedPaths": MASKED_PATHS,
                "readonlyPaths": READONLY_PATHS,
            },
        });
        Self { spec }
    }

    /// What to execute.
    #[must_use]
    pub fn args<S: AsRef<str>>(mut self, args: &[S]) -> Self {
        let args: Vec<&str> = args.iter().map(AsRef::as_ref).collect();
        self.spec["process"]["args"] = json!(args);
        self
    }

    /// Sets variables, `KEY=value` each; one that is set already is replaced.
    #[must_use]
    pub fn env<S: AsRef<str>>(mut self, variables: &[S]) -> Self {
        set_variables(&mut self.spec["process"], variables);
        self
    }

    /// The working directory.
    #[must_use]
    pub fn cwd(mut self, path: &str) -> Self {
        self.spec["process"]["cwd"] = json!(path);
        self
    }

    /// Who to run as.
    #[must_use]
    pub fn user(mut self, user: &User) -> Self {
        set_user(&mut self.spec["process"], user);
        self
    }

    /// Gives the process a terminal.
    #[must_use]
    pub fn terminal(mut self) -> Self {
        self.spec["process"]["terminal"] = json!(true);
        self.env(&["TERM=xterm"])
    }

    /// The name of the host as the container sees it.
    #[must_use]
    pub fn hostname(mut self, name: &str) -> Self {
        self.spec["hostname"] = json!(name);
        self
    }

    /// Forbids writes to the root filesystem.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.spec["root"]["readonly"] = json!(true);
        self
    }

    /// The most memory in bytes.
    #[must_use]
    pub fn memory(mut self, bytes: u64) -> Self {
        self.spec["linux"]["resources"]["memory"] = json!({ "limit": bytes });
        self
    }

    /// The most CPU time, in microseconds of each [`CPU_PERIOD`].
    #[must_use]
    pub fn cpu_quota(mut self, quota: i64) -> Self {
        self.spec["linux"]["resources"]["cpu"] = json!({ "quota": quota, "period": CPU_PERIOD });
        self
    }

    /// The most processes.
    #[must_use]
    pub fn pids(mut self, limit: i64) -> Self {
        self.spec["linux"]["resources"]["pids"] = json!({ "limit": limit });
        self
    }

    /// Shares the host's network instead of having an own, empty one.
    #[must_use]
    pub fn host_network(mut self) -> Self {
        if let Some(namespaces) = self.spec["linux"]["namespaces"].as_array_mut() {
            namespaces.retain(|namespace| namespace["type"] != "network");
        }
        self
    }

    /// Lets the container see a path of the host.
    #[must_use]
    pub fn mount(mut self, mount: &BindMount) -> Self {
        let access = if mount.read_only { "ro" } else { "rw" };
        let value = json!({
            "type": "bind",
            "source": mount.source,
            "destination": mount.destination,
            "options": ["rbind", access],
        });
        if let Some(mounts) = self.spec["mounts"].as_array_mut() {
            mounts.push(value);
        }
        self
    }

    /// Sets an annotation.
    #[must_use]
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.spec["annotations"][key] = json!(value);
        self
    }

    /// Filters its system calls by the usual profile, as far as its capabilities go.
    #[must_use]
    pub fn confined(self) -> Self {
        let bounding = self.spec["process"]["capabilities"]["bounding"].as_array();
        let bounding = bounding.into_iter().flatten().filter_map(Value::as_str);
        let profile = seccomp::profile(&bounding.collect::<Vec<_>>());
        self.seccomp(profile)
    }

    /// Filters its system calls by a profile, `linux.seccomp` of the OCI runtime spec.
    #[must_use]
    pub fn seccomp(mut self, profile: Value) -> Self {
        self.spec["linux"]["seccomp"] = profile;
        self
    }

    /// Takes away what else keeps it in its place: masked and read-only paths, and the bar to new
    /// privileges.
    #[must_use]
    pub fn unmasked(mut self) -> Self {
        self.spec["process"]["noNewPrivileges"] = json!(false);
        for paths in ["maskedPaths", "readonlyPaths"] {
            self.spec["linux"][paths] = json!([]);
        }
        self
    }

    /// The finished spec.
    pub fn build(self) -> Value {
        self.spec
    }
}

/// The process object of an added process, made from the container's own.
///
/// It inherits what it does not set: environment, user, capabilities, limits.
pub fn exec_process(spec: &Value, change: &ExecChange) -> Value {
    let mut process = spec["process"].clone();
    process["args"] = json!(change.args);
    process["terminal"] = json!(change.terminal);
    if change.terminal {
        set_variables(&mut process, &["TERM=xterm"]);
    }
    set_variables(&mut process, &change.env);
    if let Some(cwd) = &change.cwd {
        process["cwd"] = json!(cwd);
    }
    if let Some(user) = &change.user {
        set_user(&mut process, user);
    }
    process
}

/// How an added process differs from the container's first.
#[derive(Clone, Debug, Default)]
pub struct ExecChange {
    /// What to execute.
    pub args: Vec<String>,
    /// Whether it gets a terminal.
    pub terminal: bool,
    /// Variables to set, `KEY=value` each.
    pub env: Vec<String>,
    /// The working directory, if another.
    pub cwd: Option<String>,
    /// Who to run as, if somebody else.
    pub user: Option<User>,
}

fn set_user(process: &mut Value, user: &User) {
    process["user"] = json!({
        "uid": user.uid,
        "gid": user.gid,
        "additionalGids": user.additional_gids,
    });
}

fn set_variables<S: AsRef<str>>(process: &mut Value, variables: &[S]) {
    let mut env: Vec<String> = process["env"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|variable| variable.as_str().map(str::to_owned))
        .collect();
    for variable in variables {
        let variable = variable.as_ref();
        let key = variable.split('=').next().unwrap_or_default();
        env.retain(|old| old.split('=').next() != Some(key));
        env.push(variable.to_owned());
    }
    process["env"] = json!(env);
}

fn default_mounts() -> Value {
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| json!({ "destination": destination, "type": kind, "source": source, "options": options });
    let tmpfs = ["nosuid", "strictatime", "mode=755", "size=65536k"];
    json!([
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &tmpfs),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount(
            "/dev/shm",
            "tmpfs",
            "shm",
            &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
        ),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        mount("/run", "tmpfs", "tmpfs", &tmpfs),
    ])
}

/// Files by which a container on the host's network finds names, as far as the host has them.
pub fn name_resolution() -> Vec<BindMount> {
    ["/etc/hosts", "/etc/resolv.conf"]
        .into_iter()
        .filter(|path| Path::new(path).exists())
        .map(|path| BindMount { source: path.into(), destination: path.into(), read_only: true })
        .collect()
}

#[cfg(test)]
mod tests;
