//! What this backend can do, as the OCI runtime spec's features document tells it.

use serde_json::{Value, json};

/// The document, as JSON.
pub(crate) fn document() -> String {
    features().to_string()
}

fn features() -> Value {
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.3.0",
        "hooks": [
            "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"
        ],
        "mountOptions": MOUNT_OPTIONS.as_slice(),
        // It names a file of the host that a program with all privileges reads.
        "potentiallyUnsafeConfigAnnotations": [crate::making::CRIU_CONFIG],
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "capabilities": crate::engine::plan::capabilities(),
            "cgroup": {
                "v1": true, "v2": true, "systemd": false, "systemdUser": false, "rdma": true
            },
            "seccomp": { "enabled": true },
            "apparmor": { "enabled": true },
            "selinux": { "enabled": false },
            "intelRdt": { "enabled": false },
            "memoryPolicy": {
                "modes": [
                    "MPOL_DEFAULT", "MPOL_PREFERRED", "MPOL_BIND", "MPOL_INTERLEAVE",
                    "MPOL_LOCAL", "MPOL_PREFERRED_MANY", "MPOL_WEIGHTED_INTERLEAVE"
                ],
                "flags": [
                    "MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"
                ]
            },
            "mountExtensions": { "idmap": { "enabled": true } },
            "netDevices": { "enabled": false }
        }
    })
}

/// Those that the planner knows; any other is the filesystem's own.
const MOUNT_OPTIONS: [&str; 57] = [
    "async",
    "atime",
    "bind",
    "defaults",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "idmap",
    "lazytime",
    "mand",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "nolazytime",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nosymfollow",
    "private",
    "ratime",
    "rbind",
    "rdev",
    "rdiratime",
    "relatime",
    "remount",
    "rexec",
    "ridmap",
    "rnoatime",
    "rnodev",
    "rnodiratime",
    "rnoexec",
    "rnorelatime",
    "rnostrictatime",
    "rnosuid",
    "rnosymfollow",
    "ro",
    "rprivate",
    "rrelatime",
    "rro",
    "rrw",
    "rshared",
    "rslave",
    "rstrictatime",
    "rsuid",
    "rsymfollow",
    "runbindable",
    "rw",
    "shared",
    "slave",
    "strictatime",
    "suid",
    "symfollow",
    "tmpcopyup",
    "unbindable",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_says_what_there_is() {
        let features = features();
        assert_eq!(features["linux"]["capabilities"].as_array().unwrap().len(), 41);
        assert_eq!(features["linux"]["capabilities"][0], "CAP_CHOWN");
        assert!(MOUNT_OPTIONS.is_sorted());
        // Readers of the document know nothing of a field that the spec's types don't have.
        let known: oci_spec::runtime::Features = serde_json::from_value(features).unwrap();
        assert_eq!(known.oci_version_max(), "1.3.0");
        let unsafe_ones = known.potentially_unsafe_config_annotations().as_deref();
        assert_eq!(unsafe_ones.map(<[_]>::len), Some(1));
    }
}
