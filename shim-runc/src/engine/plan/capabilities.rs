//! Capabilities by name and number.

use oci_spec::runtime::{Capabilities, Capability, Process};

use crate::engine::step::Step;

/// Each at its number (linux/capability.h).
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The five sets of a process, one bit a capability.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sets {
    pub(super) bounding: u64,
    effective: u64,
    permitted: u64,
    inheritable: u64,
    ambient: u64,
}

impl Sets {
    /// Those that a process names, if it names any.
    pub(super) fn of(process: &Process) -> Option<Self> {
        let all = process.capabilities().as_ref()?;
        Some(Self {
            bounding: bits(all.bounding().as_ref()),
            effective: bits(all.effective().as_ref()),
            permitted: bits(all.permitted().as_ref()),
            inheritable: bits(all.inheritable().as_ref()),
            ambient: bits(all.ambient().as_ref()),
        })
    }

    /// Those that can't be ambient, because they are not both permitted and inheritable.
    pub(super) fn idle_ambient(self) -> Vec<&'static str> {
        let idle = self.ambient & !(self.permitted & self.inheritable);
        (0..).zip(NAMES).filter(|(bit, _)| idle & (1 << bit) != 0).map(|(_, name)| name).collect()
    }

    pub(super) fn step(self) -> Step {
        let Self { effective, permitted, inheritable, ambient, .. } = self;
        Step::SetCapabilities { effective, permitted, inheritable, ambient }
    }
}

/// Whether a process or one of its children can have the right to look into others.
pub(crate) fn may_trace(process: &Process) -> bool {
    let bounding = process.capabilities().as_ref().and_then(|all| all.bounding().as_ref());
    bounding.is_some_and(|set| set.contains(&Capability::SysPtrace))
}

fn bits(set: Option<&Capabilities>) -> u64 {
    set.into_iter().flatten().fold(0, |bits, capability| {
        let name = capability.to_string();
        let number = NAMES.iter().position(|known| *known == name);
        bits | number.map_or(0, |number| 1 << number)
    })
}

/// Whether the kernel's headers have a capability of this name, `CAP_` and all.
pub(crate) fn is_known(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    NAMES.contains(&bare)
}

/// All names, as specs have them.
pub(crate) fn all() -> Vec<String> {
    NAMES.iter().map(|name| format!("CAP_{name}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_capability_of_the_spec_has_its_number() {
        let of = |capability| bits(Some(&Capabilities::from([capability])));
        assert_eq!(of(Capability::Chown), 1);
        assert_eq!(of(Capability::SysAdmin), 1 << 21);
        assert_eq!(of(Capability::CheckpointRestore), 1 << 40);
        assert_eq!(of(Capability::Bpf), 1 << 39);
        assert!(is_known("CAP_BPF") && is_known("cap_chown") && !is_known("CAP_NO_SUCH"));
    }
}
