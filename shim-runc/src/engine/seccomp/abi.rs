//! The ABIs by which programs call the kernel, and the numbers that calls have in each.

use oci_spec::runtime::Arch;

/// Names and numbers, a line a call.
const TABLE: &str = include_str!("syscalls.tbl");

/// A set of call numbers and the width of arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Abi {
    X86_64,
    /// 32-bit pointers on a 64-bit processor: calls of [`Abi::X86_64`] with a bit in the number.
    X32,
    I386,
    Aarch64,
    Arm,
}

/// The bit in the numbers of x32.
pub(super) const X32_BIT: u32 = 1 << 30;

/// Where ARM's private calls start, far above the numbers that grow.
pub(super) const ARM_PRIVATE: u32 = 0x0f_0000;

impl Abi {
    /// The value of `seccomp_data.arch`, `AUDIT_ARCH_*`.
    pub(super) fn audit(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::I386 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
        }
    }

    /// Whether arguments have 64 bits. Of others only the low half is looked at.
    pub(super) fn is_wide(self) -> bool {
        matches!(self, Self::X86_64 | Self::Aarch64)
    }

    fn column(self) -> usize {
        match self {
            Self::X86_64 => 0,
            Self::X32 => 1,
            Self::I386 => 2,
            Self::Aarch64 => 3,
            Self::Arm => 4,
        }
    }
}

/// A kind of machine, which runs programs of one to three ABIs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Machine {
    X86_64,
    Aarch64,
}

impl Machine {
    /// The one we were built for.
    pub(super) fn of_host() -> Option<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Some(Self::X86_64),
            "aarch64" => Some(Self::Aarch64),
            _ => None,
        }
    }

    pub(super) fn native(self) -> Abi {
        match self {
            Self::X86_64 => Abi::X86_64,
            Self::Aarch64 => Abi::Aarch64,
        }
    }

    /// The ABIs that a profile lists, and the native one, which need not be listed. Those of other
    /// machines are passed over: no call here can be one of theirs.
    pub(super) fn abis(self, listed: &[Arch]) -> Vec<Abi> {
        let mut abis = vec![self.native()];
        for arch in listed {
            let abi = match (self, arch) {
                (Self::X86_64, Arch::ScmpArchX86) => Abi::I386,
                (Self::X86_64, Arch::ScmpArchX32) => Abi::X32,
                (Self::Aarch64, Arch::ScmpArchArm) => Abi::Arm,
                _ => continue,
            };
            if !abis.contains(&abi) {
                abis.push(abi);
            }
        }
        abis
    }
}

/// The table, parsed: while a profile is compiled, no longer.
#[derive(Debug)]
pub(super) struct Table(Vec<(&'static str, Numbers)>);

/// The numbers of a call in each ABI.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Numbers([Option<u32>; 5]);

impl Table {
    pub(super) fn read() -> Self {
        let lines = TABLE.lines().filter(|line| !line.starts_with('#'));
        let entry = |line: &'static str| {
            let mut words = line.split(' ');
            let name = words.next().unwrap_or_default();
            let mut numbers = [None; 5];
            for (number, word) in numbers.iter_mut().zip(words) {
                *number = word.parse().ok();
            }
            (name, Numbers(numbers))
        };
        Self(lines.map(entry).collect())
    }

    /// The numbers of a call: none for a name that is not known.
    pub(super) fn numbers(&self, name: &str) -> Numbers {
        let found = self.0.binary_search_by_key(&name, |(known, _)| known);
        found.map_or_else(|_| Numbers::default(), |index| self.0[index].1)
    }
}

impl Numbers {
    /// The number in an ABI, without x32's bit.
    pub(super) fn of(self, abi: Abi) -> Option<u32> {
        self.0[abi.column()]
    }
}

/// The older way of a call on i386: an operation of `socketcall` or `ipc`, told by the first
/// argument. It is there beside a call of the same name, where there is one.
///
/// The number of that call, and of the operation.
pub(super) fn multiplexed(name: &str) -> Option<(u32, u32)> {
    const SOCKETCALL: u32 = 102;
    const IPC: u32 = 117;
    Some(match name {
        "socket" => (SOCKETCALL, 1),
        "bind" => (SOCKETCALL, 2),
        "connect" => (SOCKETCALL, 3),
        "listen" => (SOCKETCALL, 4),
        "accept" => (SOCKETCALL, 5),
        "getsockname" => (SOCKETCALL, 6),
        "getpeername" => (SOCKETCALL, 7),
        "socketpair" => (SOCKETCALL, 8),
        "send" => (SOCKETCALL, 9),
        "recv" => (SOCKETCALL, 10),
        "sendto" => (SOCKETCALL, 11),
        "recvfrom" => (SOCKETCALL, 12),
        "shutdown" => (SOCKETCALL, 13),
        "setsockopt" => (SOCKETCALL, 14),
        "getsockopt" => (SOCKETCALL, 15),
        "sendmsg" => (SOCKETCALL, 16),
        "recvmsg" => (SOCKETCALL, 17),
        "accept4" => (SOCKETCALL, 18),
        "recvmmsg" => (SOCKETCALL, 19),
        "sendmmsg" => (SOCKETCALL, 20),
        "semop" => (IPC, 1),
        "semget" => (IPC, 2),
        "semctl" => (IPC, 3),
        "semtimedop" => (IPC, 4),
        "msgsnd" => (IPC, 11),
        "msgrcv" => (IPC, 12),
        "msgget" => (IPC, 13),
        "msgctl" => (IPC, 14),
        "shmat" => (IPC, 21),
        "shmdt" => (IPC, 22),
        "shmget" => (IPC, 23),
        "shmctl" => (IPC, 24),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_knows_old_and_new_calls() {
        let table = Table::read();
        let of = |name| table.numbers(name).0;
        assert_eq!(of("read"), [Some(0), Some(0), Some(3), Some(63), Some(3)]);
        assert_eq!(of("ioctl"), [Some(16), Some(514), Some(54), Some(29), Some(54)]);
        assert_eq!(of("socketcall"), [None, None, Some(102), None, None]);
        assert_eq!(of("ipc"), [None, None, Some(117), None, None]);
        assert_eq!(of("mseal"), [Some(462); 5]);
        assert_eq!(of("breakpoint"), [None, None, None, None, Some(ARM_PRIVATE + 1)]);
        assert_eq!(of("no_such_call"), [None; 5]);
    }

    #[test]
    fn every_line_of_the_table_is_whole_and_sorted() {
        let lines: Vec<_> = TABLE.lines().filter(|line| !line.starts_with('#')).collect();
        for line in &lines {
            let mut words = line.split(' ');
            assert!(!words.next().unwrap().is_empty());
            let numbers: Vec<_> = words.collect();
            assert_eq!(numbers.len(), 5, "{line}");
            assert!(numbers.iter().all(|n| *n == "-" || n.parse::<u32>().is_ok()), "{line}");
        }
        assert!(lines.len() > 480);
        // The search relies on it.
        assert!(Table::read().0.is_sorted_by_key(|(name, _)| *name));
    }

    #[test]
    fn the_table_agrees_with_the_libc_crate() {
        let table = Table::read();
        let native = Machine::of_host().map(Machine::native);
        for (name, number) in [
            ("write", libc::SYS_write),
            ("clone3", libc::SYS_clone3),
            ("openat2", libc::SYS_openat2),
            ("seccomp", libc::SYS_seccomp),
            ("mount_setattr", libc::SYS_mount_setattr),
            ("landlock_restrict_self", libc::SYS_landlock_restrict_self),
        ] {
            let known = native.and_then(|abi| table.numbers(name).of(abi));
            assert_eq!(known.map(i64::from), Some(number), "{name}");
        }
    }

    #[test]
    fn operations_of_i386_are_numbered_as_the_kernel_has_them() {
        assert_eq!(multiplexed("socket"), Some((102, 1)));
        assert_eq!(multiplexed("sendmmsg"), Some((102, 20)));
        assert_eq!(multiplexed("shmctl"), Some((117, 24)));
        assert_eq!(multiplexed("read"), None);
    }

    #[test]
    fn the_native_abi_need_not_be_listed() {
        let listed = [Arch::ScmpArchX86, Arch::ScmpArchArm, Arch::ScmpArchMips, Arch::ScmpArchX86];
        assert_eq!(Machine::X86_64.abis(&listed), [Abi::X86_64, Abi::I386]);
        assert_eq!(Machine::Aarch64.abis(&listed), [Abi::Aarch64, Abi::Arm]);
    }
}
