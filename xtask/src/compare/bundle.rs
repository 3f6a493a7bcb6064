//! A bundle: a spec, what the host has to have for it, and what is done with it.

use serde_json::{Value, json};

use super::act::Act;

/// One concern, as every runtime gets it. Texts may hold `${dir}`, the bundle's directory, `${group}`,
/// the folder of its cgroup, and `${holder}`, the process whose namespaces are joined.
#[derive(Debug)]
pub(super) struct Bundle {
    /// `family.name`.
    pub(super) name: String,
    pub(super) spec: Value,
    pub(super) host: Vec<Host>,
    pub(super) acts: Vec<Act>,
    /// The program is none of ours, so its output is compared as text.
    pub(super) is_text: bool,
}

/// Something that is there before the container; paths are relative to the bundle.
#[derive(Debug)]
pub(super) enum Host {
    Folder(&'static str),
    File(&'static str, &'static str),
    Script(&'static str, &'static str),
    Link(&'static str, &'static str),
    Mode(&'static str, u32),
    Owner(&'static str, u32),
    /// A mount of the folder onto itself, with these flags: `shared`, `noexec`.
    Mounted(&'static str, &'static [&'static str]),
    /// A process in new namespaces, by the flags of unshare(1).
    Holder(&'static [&'static str]),
}

impl Bundle {
    /// The base spec with the probe, which is asked this.
    pub(super) fn new(name: &str, questions: &[&str]) -> Self {
        let mut args = vec!["/probe"];
        args.extend(questions);
        Self {
            name: name.to_owned(),
            spec: base(&args),
            host: Vec::new(),
            acts: Act::life(),
            is_text: false,
        }
    }

    /// The base spec with another program.
    pub(super) fn program(name: &str, args: &[&str]) -> Self {
        let mut bundle = Self::new(name, &[]);
        bundle.spec["process"]["args"] = json!(args);
        bundle.is_text = true;
        bundle
    }

    /// A container whose program stays, and what is done with it.
    pub(super) fn lasting(name: &str, acts: impl IntoIterator<Item = Act>) -> Self {
        Self::new(name, &["stay"]).acting(acts)
    }

    /// Merges more into the spec: objects field by field, `null` removes, everything else replaces.
    pub(super) fn patch(mut self, patch: Value) -> Self {
        merge(&mut self.spec, patch);
        self
    }

    pub(super) fn process(self, patch: Value) -> Self {
        self.patch(json!({ "process": patch }))
    }

    pub(super) fn linux(self, patch: Value) -> Self {
        self.patch(json!({ "linux": patch }))
    }

    pub(super) fn resources(self, patch: Value) -> Self {
        self.linux(json!({ "resources": patch }))
    }

    /// Adds a mount.
    pub(super) fn mount(self, target: &str, kind: &str, source: &str, options: &[&str]) -> Self {
        self.mounts(json!({
            "destination": target, "type": kind, "source": source, "options": options }))
    }

    /// Adds a mount as it is.
    pub(super) fn mounts(mut self, mount: Value) -> Self {
        self.spec["mounts"].as_array_mut().expect("the base has mounts").push(mount);
        self
    }

    /// Adds a namespace, or gives it another path.
    pub(super) fn namespace(mut self, kind: &str, path: Option<&str>) -> Self {
        self = self.without(kind);
        let all = self.spec["linux"]["namespaces"].as_array_mut().expect("the base has some");
        all.push(
            path.map_or(json!({ "type": kind }), |path| json!({ "type": kind, "path": path })),
        );
        self
    }

    /// Takes a namespace away.
    pub(super) fn without(mut self, kind: &str) -> Self {
        let all = self.spec["linux"]["namespaces"].as_array_mut().expect("the base has some");
        all.retain(|one| one["type"] != kind);
        self
    }

    /// Changes the spec where a patch cannot.
    pub(super) fn with(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.spec);
        self
    }

    pub(super) fn host(mut self, host: impl IntoIterator<Item = Host>) -> Self {
        self.host.extend(host);
        self
    }

    pub(super) fn acting(mut self, acts: impl IntoIterator<Item = Act>) -> Self {
        self.acts = acts.into_iter().collect();
        self
    }

    /// Maps ids inside to others outside, in a user namespace.
    pub(super) fn users(self) -> Self {
        let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
        self.namespace("user", None).linux(json!({ "uidMappings": map, "gidMappings": map }))
    }
}

fn merge(into: &mut Value, patch: Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (key, value) in patch {
                if value.is_null() {
                    into.remove(&key);
                } else {
                    merge(into.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        (into, patch) => *into = patch,
    }
}

const CAPABILITIES: [&str; 3] = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];

/// What `runc spec` writes, without a terminal and with a root filesystem that can be written. The
/// version is one that old runtimes know.
fn base(args: &[&str]) -> Value {
    let hidden = ["nosuid", "noexec", "nodev"];
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0 },
            "args": args,
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                    "TERM=xterm"],
            "cwd": "/",
            "capabilities": { "bounding": CAPABILITIES, "effective": CAPABILITIES,
                "permitted": CAPABILITIES, "ambient": CAPABILITIES },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
            "noNewPrivileges": true,
        },
        "root": { "path": "rootfs", "readonly": false },
        "hostname": "box",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
            { "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
              "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] },
            { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
              "options": hidden },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs",
              "options": ["nosuid", "noexec", "nodev", "ro"] },
        ],
        "linux": {
            "cgroupsPath": "/${group}/c1",
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": [{ "type": "pid" }, { "type": "network" }, { "type": "ipc" },
                { "type": "uts" }, { "type": "mount" }],
            "maskedPaths": ["/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys",
                "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats",
                "/proc/sched_debug", "/sys/firmware", "/proc/scsi"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys",
                "/proc/sysrq-trigger"],
        },
    })
}
