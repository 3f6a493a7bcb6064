//! What the guest consists of. A change here makes a new image, for the key is made of all this.

use sha2::{Digest, Sha256};

use super::BED;
use super::agent::{PORT, ROLE};

/// The packages of the guest beside Debian's essential ones: systemd and what its units need; then
/// what the tests call: the programs inside their containers, images as layers, a caller of the
/// command line.
pub(super) const PACKAGES: [&str; 11] = [
    "systemd",
    "systemd-sysv",
    "dbus",
    "udev",
    "kmod",
    "iproute2",
    "procps",
    "e2fsprogs",
    "busybox-static",
    "erofs-utils",
    "podman",
];

/// The packages of the host's side. The newer suite's QEMU suits what a machine may have of the same
/// source; its kernel has the drivers of the root disk and of the serial line built in, so there is
/// no initramfs.
pub(super) const MACHINE: [&str; 3] = ["qemu-system-x86", "seabios", "linux-image-cloud-amd64"];

/// The label of the disk with our programs: which of several disks is which depends on a race.
pub(super) const LABEL: &str = "bed";

/// Room for what tests write, beside the system's own files, in MiB.
pub(super) const ROOM: u64 = 700;

/// Units that only cost time: nobody logs in, and what is written lasts as long as the machine.
pub(super) const MASKED: [&str; 16] = [
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty-static.service",
    "getty@tty1.service",
    "podman-auto-update.service",
    "podman-auto-update.timer",
    "podman-restart.service",
    "podman.service",
    "podman.socket",
    "serial-getty@ttyS0.service",
    "systemd-journal-flush.service",
    "systemd-random-seed.service",
];

/// Files of the guest, by their paths.
pub(super) fn files() -> [(&'static str, String); 7] {
    [
        (
            "etc/fstab",
            format!("LABEL={LABEL} {BED} ext4 ro,noatime,x-systemd.device-timeout=600 0 0\n"),
        ),
        ("etc/hostname", "guest\n".to_owned()),
        // A first boot would make its own, and much else.
        ("etc/machine-id", "5ab1e0fa11e55ca4e0fa11e55ca4e5ab\n".to_owned()),
        ("etc/.updated", String::new()),
        ("var/.updated", String::new()),
        ("etc/systemd/journald.conf", "[Journal]\nStorage=volatile\n".to_owned()),
        (UNIT, unit()),
    ]
}

/// The unit of the agent.
const UNIT: &str = "etc/systemd/system/bed.service";

/// What containerd's own unit has, has this: a service whose cgroup is its own to divide, and whose
/// processes outlive it.
fn unit() -> String {
    format!(
        "[Unit]\n\
         Description=Runs what the host asks for\n\
         RequiresMountsFor={BED}\n\
         Wants=dbus.service\n\
         After=dbus.service\n\
         [Service]\n\
         ExecStart={BED}/agent\n\
         Environment={ROLE}=agent HOME=/root\n\
         Environment=PATH={BED}/bin:{BED}/tests:/usr/sbin:/usr/bin:/sbin:/bin\n\
         Delegate=yes\n\
         KillMode=process\n\
         TasksMax=infinity\n\
         LimitNOFILE=1048576\n\
         StandardOutput=journal+console\n\
         StandardError=journal+console\n"
    )
}

/// Links of the guest, and what they point to.
pub(super) fn links() -> Vec<(String, &'static str)> {
    let masked = MASKED.iter().map(|unit| (format!("etc/systemd/system/{unit}"), "/dev/null"));
    let wanted = "etc/systemd/system/multi-user.target.wants/bed.service".to_owned();
    let target = "etc/systemd/system/default.target".to_owned();
    masked
        .chain([(wanted, "../bed.service"), (target, "/lib/systemd/system/multi-user.target")])
        .collect()
}

/// Names the image: another recipe, another key.
pub(super) fn key(machine: &str) -> String {
    short(&format!("{machine} {PACKAGES:?} {ROOM} {PORT} {:?} {:?}", files(), links()))
}

/// Names the host's side.
pub(super) fn machine_key() -> String {
    short(&format!("{MACHINE:?}"))
}

fn short(text: &str) -> String {
    hex::encode(&Sha256::digest(text)[..6])
}
