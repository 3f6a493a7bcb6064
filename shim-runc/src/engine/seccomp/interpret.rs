//! Runs a filter as the kernel does, for the tests.

use super::Instruction;

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
