//! The program of a pod's first container, which has nothing to do but to be there.
//!
//! It is a static program of a few instructions: in gVisor every page of a larger one would be a page of
//! the sandbox's, and it would have to be found on the host. Processes that fall to it are not kept as
//! zombies: it ignores SIGCHLD.

/// Where the code lies in memory, and the file with it.
const BASE: u64 = 0x40_0000;
const HEADERS: u64 = 64 + 56;

/// `struct sigaction` of the kernel's: SIG_IGN, and nothing else; it ends the file.
const IGNORE: [u8; 32] = {
    let mut action = [0; 32];
    action[0] = 1;
    action
};

#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = 62;
#[cfg(target_arch = "x86_64")]
const CODE: &[u8] = &[
    0xb8, 13, 0, 0, 0, // mov eax, rt_sigaction
    0xbf, 17, 0, 0, 0, // mov edi, SIGCHLD
    0x48, 0x8d, 0x35, 19, 0, 0, 0, // lea rsi, [rip + 19]: behind the code
    0x31, 0xd2, // xor edx, edx
    0x41, 0xba, 8, 0, 0, 0, // mov r10d, 8
    0x0f, 0x05, // syscall
    0xb8, 34, 0, 0, 0, // mov eax, pause
    0x0f, 0x05, // syscall
    0xeb, 0xf7, // jmp to mov eax, pause
];

#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = 183;
#[cfg(target_arch = "aarch64")]
const CODE: &[u8] = &[
    0xc8, 0x10, 0x80, 0xd2, // mov x8, rt_sigaction
    0x20, 0x02, 0x80, 0xd2, // mov x0, SIGCHLD
    0x61, 0x01, 0x00, 0x10, // adr x1, 44: behind the code
    0x02, 0x00, 0x80, 0xd2, // mov x2, 0
    0x03, 0x01, 0x80, 0xd2, // mov x3, 8
    0x01, 0x00, 0x00, 0xd4, // svc
    0x28, 0x09, 0x80, 0xd2, // mov x8, ppoll
    0x00, 0x00, 0x80, 0xd2, // mov x0, 0
    0x01, 0x00, 0x80, 0xd2, // mov x1, 0
    0x02, 0x00, 0x80, 0xd2, // mov x2, 0
    0x03, 0x00, 0x80, 0xd2, // mov x3, 0
    0x01, 0x00, 0x00, 0xd4, // svc
    0xfa, 0xff, 0xff, 0x17, // b to mov x8, ppoll
];

/// The file: elf(5) with one segment, which is all of it.
pub(super) fn program() -> Vec<u8> {
    let length = HEADERS + u64::try_from(CODE.len() + IGNORE.len()).unwrap_or_default();
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let halves = |file: &mut Vec<u8>, values: &[u16]| {
        values.iter().for_each(|value| file.extend(value.to_le_bytes()));
    };
    let words = |file: &mut Vec<u8>, values: &[u32]| {
        values.iter().for_each(|value| file.extend(value.to_le_bytes()));
    };
    let longs = |file: &mut Vec<u8>, values: &[u64]| {
        values.iter().for_each(|value| file.extend(value.to_le_bytes()));
    };
    // ET_EXEC of this machine, version 1, the entry, the program headers behind this one, no sections.
    halves(&mut file, &[2, MACHINE]);
    words(&mut file, &[1]);
    longs(&mut file, &[BASE + HEADERS, 64, 0]);
    words(&mut file, &[0]);
    halves(&mut file, &[64, 56, 1, 0, 0, 0]);
    // PT_LOAD, to be read and executed: from the file's beginning to BASE, by pages.
    words(&mut file, &[1, 5]);
    longs(&mut file, &[0, BASE, BASE, length, length, 0x1000]);
    file.extend(CODE);
    file.extend(IGNORE);
    file
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt, process::Command, time::Instant};

    use super::*;

    #[test]
    fn it_sleeps_until_it_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pause");
        fs::write(&path, program()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let mut child = Command::new(&path).spawn().unwrap();
        let stat = format!("/proc/{}/stat", child.id());
        let begun = Instant::now();
        let sleeps = || fs::read_to_string(&stat).is_ok_and(|stat| stat.contains("(pause) S"));
        while !sleeps() && begun.elapsed().as_secs() < 10 {
            std::thread::yield_now();
        }
        let (slept, ended) = (sleeps(), child.try_wait().unwrap());
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        // Whatever is found: it would hold the streams of this test for ever.
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(slept && ended.is_none(), "{ended:?} {status}");
        let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:\t")).unwrap();
        let ignored = u64::from_str_radix(ignored, 16).unwrap();
        // SIGCHLD; others it has from whoever starts it.
        assert_ne!(ignored & (1 << (17 - 1)), 0, "{status}");
    }
}
