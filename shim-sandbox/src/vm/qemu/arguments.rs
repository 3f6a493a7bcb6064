//! QEMU's command line: a function of the configuration and of which descriptor is what.

use std::{fmt::Write, path::Path};

use super::super::{Accelerator, VmConfig};
use crate::guest::{PORT, WORD};

/// Descriptors of every machine: its end of the line, and of the monitor.
const LINE: usize = 3;
const MONITOR: usize = 4;

/// The numbers of a machine's other descriptors.
#[derive(Clone, Copy, Debug)]
pub(super) struct Places {
    share: usize,
    first_tap: usize,
    first_disk: usize,
}

impl Places {
    pub(super) fn of(config: &VmConfig) -> Self {
        let share = MONITOR + 1;
        let first_tap = share + usize::from(config.share.is_some());
        Self { share, first_tap, first_disk: first_tap + config.nics.len() }
    }
}

/// Whatever the host is, the kernel is to say little, to end with a panic, and to have nothing but what
/// a guest uses.
const KERNEL: &str =
    "console=ttyS0 quiet panic=-1 reboot=t random.trust_cpu=on cgroup_no_v1=all audit=0";

/// Of a kernel whose processor is a program: a timer that is late on a busy host is no broken one, and what
/// takes long for nothing is left out, the trusted certificates of modules among it.
const KERNEL_TCG: &str = "no_timer_check cryptomgr.notests \
    initcall_blacklist=load_system_certificate_list,jent_mod_init,bpf_tcp_ca_kfunc_init";

/// The arguments behind the program's name.
pub(super) fn arguments(config: &VmConfig, places: Places) -> Vec<String> {
    let mut line = Line(Vec::new());
    line.flags(&["nodefaults", "no-user-config", "no-reboot"]);
    line.pair("display", "none");
    let (accelerator, processor) = match config.accelerator {
        Accelerator::Kvm => ("kvm", "host"),
        Accelerator::Tcg => ("tcg", "max"),
    };
    line.pair("accel", accelerator);
    line.pair("cpu", processor);
    // Devices that no guest of ours uses cost time at every start, and are there to be attacked. A dump of
    // QEMU must not have the guest's memory.
    line.pair(
        "machine",
        "q35,hpet=off,sata=off,smbus=off,vmport=off,dump-guest-core=off,memory-backend=memory",
    );
    line.pair("smp", &config.processors.to_string());
    let memory = config.memory;
    line.pair("m", &format!("{memory}M"));
    // What serves the share reads the guest's memory.
    line.pair(
        "object",
        &format!("memory-backend-memfd,id=memory,size={memory}M,share=on,dump=off"),
    );
    line.pair("kernel", &config.kernel.display().to_string());
    line.pair("initrd", &config.initrd.display().to_string());
    line.pair("append", &append(config));
    line.pair("chardev", "stdio,id=console,signal=off");
    line.pair("serial", "chardev:console");
    line.pair("chardev", &format!("socket,id=monitor,fd={MONITOR}"));
    line.pair("mon", "chardev=monitor,mode=control");
    line.pair("device", "virtio-serial-pci,id=serial,max_ports=2");
    line.pair("chardev", &format!("socket,id=line,fd={LINE}"));
    line.pair("device", &format!("virtserialport,chardev=line,name={PORT}"));
    if let Some(tag) = &config.share {
        line.pair("chardev", &format!("socket,id=share,fd={}", places.share));
        line.pair("device", &format!("vhost-user-fs-pci,chardev=share,tag={}", escaped(tag)));
    }
    line.nics(config, places.first_tap);
    line.disks(config, places.first_disk);
    line.pair("sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
    line.0
}

fn append(config: &VmConfig) -> String {
    let mut append = KERNEL.to_owned();
    if config.accelerator == Accelerator::Tcg {
        append = format!("{append} {KERNEL_TCG}");
    }
    if !config.append.is_empty() {
        append = format!("{append} {}", config.append);
    }
    // Last, for it counts.
    format!("{append} {WORD}={}", config.word.as_str())
}

struct Line(Vec<String>);

impl Line {
    fn flags(&mut self, names: &[&str]) {
        self.0.extend(names.iter().map(|name| format!("-{name}")));
    }

    fn pair(&mut self, name: &str, value: &str) {
        self.0.extend([format!("-{name}"), value.to_owned()]);
    }

    fn nics(&mut self, config: &VmConfig, first: usize) {
        for (n, nic) in config.nics.iter().enumerate() {
            let mac = nic.mac.iter().fold(String::new(), |mut mac, byte| {
                let colon = if mac.is_empty() { "" } else { ":" };
                // A string takes whatever is written.
                let _taken = write!(mac, "{colon}{byte:02x}");
                mac
            });
            self.pair("netdev", &format!("tap,id=net{n},fd={}", first + n));
            // Without a ROM: no guest boots from it.
            self.pair("device", &format!("virtio-net-pci,netdev=net{n},mac={mac},romfile="));
        }
    }

    fn disks(&mut self, config: &VmConfig, first: usize) {
        for (n, disk) in config.disks.iter().enumerate() {
            let read_only = if disk.is_readonly { "on" } else { "off" };
            self.pair("add-fd", &format!("fd={},set={n}", first + n));
            let file = format!("driver=file,filename=/dev/fdset/{n},locking=off");
            self.pair("blockdev", &format!("node-name=file{n},read-only={read_only},{file}"));
            let raw = format!("driver=raw,node-name=disk{n},file=file{n},read-only={read_only}");
            self.pair("blockdev", &raw);
            let serial = &disk.serial;
            self.pair("device", &format!("virtio-blk-pci,drive=disk{n},serial={serial}"));
        }
    }
}

/// A value of QEMU's options: a comma would end it.
fn escaped(value: impl AsRef<Path>) -> String {
    value.as_ref().display().to_string().replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        channel::Word,
        vm::{Disk, Nic},
    };

    const WHOLE: &str = "\
-nodefaults
-no-user-config
-no-reboot
-display none
-accel tcg
-cpu max
-machine q35,hpet=off,sata=off,smbus=off,vmport=off,dump-guest-core=off,memory-backend=memory
-smp 2
-m 256M
-object memory-backend-memfd,id=memory,size=256M,share=on,dump=off
-kernel /image/kernel
-initrd /image/initrd
-append console=ttyS0 quiet panic=-1 reboot=t random.trust_cpu=on cgroup_no_v1=all audit=0 \
no_timer_check cryptomgr.notests \
initcall_blacklist=load_system_certificate_list,jent_mod_init,bpf_tcp_ca_kfunc_init more=1 shim.word=w1
-chardev stdio,id=console,signal=off
-serial chardev:console
-chardev socket,id=monitor,fd=4
-mon chardev=monitor,mode=control
-device virtio-serial-pci,id=serial,max_ports=2
-chardev socket,id=line,fd=3
-device virtserialport,chardev=line,name=shim.line
-chardev socket,id=share,fd=5
-device vhost-user-fs-pci,chardev=share,tag=a,,b
-netdev tap,id=net0,fd=6
-device virtio-net-pci,netdev=net0,mac=02:00:0a:00:00:ff,romfile=
-add-fd fd=7,set=0
-blockdev node-name=file0,read-only=on,driver=file,filename=/dev/fdset/0,locking=off
-blockdev driver=raw,node-name=disk0,file=file0,read-only=on
-device virtio-blk-pci,drive=disk0,serial=c1
-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny
";

    #[test]
    fn a_configuration_has_one_command_line() {
        let config = VmConfig {
            accelerator: Accelerator::Tcg,
            processors: 2,
            memory: 256,
            kernel: "/image/kernel".into(),
            initrd: "/image/initrd".into(),
            word: Word::parse("w1").unwrap(),
            append: "more=1".into(),
            share: Some("a,b".into()),
            disks: vec![Disk { serial: "c1".into(), is_readonly: true }],
            nics: vec![Nic { mac: [2, 0, 10, 0, 0, 255] }],
            cgroups: Vec::new(),
        };
        let shown = |config: &VmConfig| {
            let words = arguments(config, Places::of(config));
            words.iter().fold(String::new(), |text, word| match word.strip_prefix('-') {
                Some(_) if text.is_empty() => word.clone(),
                Some(_) => format!("{text}\n{word}"),
                None => format!("{text} {word}"),
            }) + "\n"
        };
        assert_eq!(shown(&config), WHOLE);
        let kvm = VmConfig { accelerator: Accelerator::Kvm, share: None, ..config };
        let line = shown(&kvm);
        assert!(line.contains("-accel kvm\n-cpu host\n"), "{line}");
        assert!(!line.contains("no_timer_check") && !line.contains("vhost-user"), "{line}");
        assert!(line.contains("fd=5\n") && line.contains("fd=6,set=0"), "{line}");
    }
}
