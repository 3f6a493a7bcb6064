//! Runs a filter as the kernel does, for tests and fuzzers.

use oci_spec::runtime::LinuxSeccomp;

use super::{
    Instruction,
    abi::{Abi, Machine},
    compile_for,
};

/// Compiles a profile for each kind of machine, and runs the filter for calls of each of its ABIs: it
/// is one that the kernel takes, every path through it returns, and none is longer than it is itself.
///
/// # Panics
/// When the filter is not as it has to be.
pub(crate) fn check_profile(profile: &LinuxSeccomp) {
    let all = [
        (Machine::X86_64, &[Abi::X86_64, Abi::X32, Abi::I386][..]),
        (Machine::Aarch64, &[Abi::Aarch64, Abi::Arm][..]),
    ];
    for (machine, abis) in all {
        let Ok(filter) = compile_for(machine, profile) else { continue };
        check(&filter.program);
        let again = compile_for(machine, profile).expect("it was compiled before");
        assert_eq!(filter, again, "compiling is not deterministic");
        let archs = abis.iter().map(|abi| abi.audit()).chain([0, u32::MAX]);
        for arch in archs {
            let low = 0..600;
            let others = [0x4000_0000, 0x4000_0201, 0xf_0002, u32::MAX - 1, u32::MAX];
            for number in low.chain(others) {
                for args in [[0; 6], [u64::MAX; 6], [0x1_0000_0005; 6]] {
                    let (_, steps) = run(&filter.program, &Call { arch, number, args });
                    assert!(steps <= filter.program.len());
                }
            }
        }
    }
}

/// What a program sees of a call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) arch: u32,
    pub(super) number: u32,
    pub(super) args: [u64; 6],
}

impl Call {
    fn word(&self, offset: u32) -> u32 {
        let index = offset as usize / 4;
        match index {
            0 => self.number,
            1 => self.arch,
            4..16 => {
                let arg = self.args[(index - 4) / 2];
                if index.is_multiple_of(2) {
                    (arg & 0xffff_ffff) as u32
                } else {
                    (arg >> 32) as u32
                }
            }
            _ => panic!("a load of offset {offset}"),
        }
    }
}

/// What the program returns, and after how many instructions.
pub(super) fn run(program: &[Instruction], call: &Call) -> (u32, usize) {
    let mut accumulator = 0;
    let mut at = 0;
    for steps in 1.. {
        let Instruction { code, jt, jf, k } = program[at];
        at += 1;
        let over = |met: bool| usize::from(if met { jt } else { jf });
        match code {
            0x20 => accumulator = call.word(k),
            0x54 => accumulator &= k,
            0x05 => at += k as usize,
            0x15 => at += over(accumulator == k),
            0x25 => at += over(accumulator > k),
            0x35 => at += over(accumulator >= k),
            0x06 => return (k, steps),
            _ => panic!("operation {code:#x}"),
        }
    }
    unreachable!("programs only go forward");
}

/// The checks that the kernel makes before it takes a program.
pub(super) fn check(program: &[Instruction]) {
    assert!((1..=4096).contains(&program.len()), "{} instructions", program.len());
    for (at, Instruction { code, jt, jf, k }) in program.iter().enumerate() {
        let room = program.len() - at - 1;
        let reached = match code {
            0x05 => *k as usize,
            0x15 | 0x25 | 0x35 => usize::from(*jt.max(jf)),
            0x20 => {
                assert!(*k < 64 && k % 4 == 0, "a load of offset {k}");
                0
            }
            _ => continue,
        };
        assert!(reached < room, "instruction {at} leaves the program");
    }
    assert_eq!(program.last().map(|last| last.code), Some(0x06));
}
