//! Device rules as a program that the kernel runs at each access on v2.
//!
//! The context is `struct bpf_cgroup_dev_ctx`: the kind in the low half of the first word, the
//! access in its high half, then major and minor. The answer is 1 to allow.

use super::{
    super::bpf::Instruction,
    rules::{Access, Devices, Rules, Verdict},
};

// Registers: the answer, the context (free once it is read), and what was read from it.
const ANSWER: u8 = 0;
const CONTEXT: u8 = 1;
const SCRATCH: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

// Operations, of linux/bpf.h and linux/bpf_common.h.
const LOAD_WORD: u8 = 0x61;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const SET: u8 = 0xb4;
const COPY: u8 = 0xbc;
const JUMP_IF_EQUAL: u8 = 0x15;
const JUMP_UNLESS_EQUAL: u8 = 0x55;
const JUMP_UNLESS_SAME: u8 = 0x5d;
const EXIT: u8 = 0x95;

/// Emits the program for some rules.
pub(super) fn emit(rules: &Rules) -> Vec<Instruction> {
    let mut program = vec![
        load(KIND, 0),
        with(AND, KIND, 0xffff),
        load(ACCESS, 0),
        with(SHIFT_RIGHT, ACCESS, 16),
        load(MAJOR, 4),
        load(MINOR, 8),
    ];
    for (devices, &access) in &rules.exceptions {
        exception(&mut program, rules.default, devices, access);
    }
    answer(&mut program, rules.default);
    program
}

/// One exception: tests that jump past its end, else the answer that is not the default.
fn exception(program: &mut Vec<Instruction>, default: Verdict, devices: &Devices, access: Access) {
    let mut block = vec![with(JUMP_UNLESS_EQUAL, KIND, devices.kind as i32)];
    if access != Access::ALL {
        block.push(between(COPY, SCRATCH, ACCESS));
        block.push(with(AND, SCRATCH, i32::from(access.0)));
        block.push(match default {
            // All that is asked for has to be allowed; one denied part denies it all.
            Verdict::Deny => between(JUMP_UNLESS_SAME, SCRATCH, ACCESS),
            Verdict::Allow => with(JUMP_IF_EQUAL, SCRATCH, 0),
        });
    }
    for (register, number) in [(MAJOR, devices.major), (MINOR, devices.minor)] {
        if let Some(number) = number {
            let number = i32::try_from(number).expect("checked when the rules were read");
            block.push(with(JUMP_UNLESS_EQUAL, register, number));
        }
    }
    let opposite = match default {
        Verdict::Allow => Verdict::Deny,
        Verdict::Deny => Verdict::Allow,
    };
    answer(&mut block, opposite);
    let length = block.len();
    for (index, instruction) in block.iter_mut().enumerate() {
        if matches!(instruction.code, JUMP_IF_EQUAL | JUMP_UNLESS_EQUAL | JUMP_UNLESS_SAME) {
            // Jumps count from the next instruction.
            instruction.offset = i16::try_from(length - index - 1).expect("a block is short");
        }
    }
    program.append(&mut block);
}

fn answer(program: &mut Vec<Instruction>, verdict: Verdict) {
    program.push(with(SET, ANSWER, i32::from(verdict == Verdict::Allow)));
    program.push(with(EXIT, 0, 0));
}

fn load(register: u8, offset: i16) -> Instruction {
    Instruction { code: LOAD_WORD, registers: CONTEXT << 4 | register, offset, immediate: 0 }
}

fn with(code: u8, register: u8, immediate: i32) -> Instruction {
    Instruction { code, registers: register, offset: 0, immediate }
}

fn between(code: u8, destination: u8, source: u8) -> Instruction {
    Instruction { code, registers: source << 4 | destination, offset: 0, immediate: 0 }
}

#[cfg(test)]
mod tests {
    use super::{
        super::rules::{Kind, tests::spec},
        *,
    };

    /// Runs a program as the kernel would.
    fn run(program: &[Instruction], kind: Kind, access: u8, major: u32, minor: u32) -> bool {
        let context = [kind as u32 | u32::from(access) << 16, major, minor];
        let mut registers = [0_u64; 11];
        let mut at = 0_usize;
        loop {
            let Instruction { code, registers: both, offset, immediate } = program[at];
            let (to, from) = (usize::from(both & 15), usize::from(both >> 4));
            let low = |value: u64| value & 0xffff_ffff;
            let number = i64::from(immediate).cast_unsigned();
            let offset = usize::try_from(offset).expect("no loops, no negative fields");
            let mut jump = false;
            match code {
                LOAD_WORD => registers[to] = context[offset / 4].into(),
                AND => registers[to] = low(registers[to] & number),
                SHIFT_RIGHT => registers[to] = low(registers[to]) >> number,
                SET => registers[to] = low(number),
                COPY => registers[to] = low(registers[from]),
                JUMP_IF_EQUAL => jump = registers[to] == number,
                JUMP_UNLESS_EQUAL => jump = registers[to] != number,
                JUMP_UNLESS_SAME => jump = registers[to] != registers[from],
                EXIT => return registers[0] == 1,
                _ => panic!("unknown operation {code:#x}"),
            }
            at += 1 + if jump { offset } else { 0 };
        }
    }

    /// What the rules say, without a program.
    fn expected(rules: &Rules, kind: Kind, access: u8, major: u32, minor: u32) -> bool {
        let matches = |devices: &Devices| {
            devices.kind == kind
                && devices.major.is_none_or(|number| number == major)
                && devices.minor.is_none_or(|number| number == minor)
        };
        let hit = |(devices, has): (&Devices, &Access)| match rules.default {
            Verdict::Deny => matches(devices) && access & !has.0 == 0,
            Verdict::Allow => matches(devices) && access & has.0 != 0,
        };
        rules.exceptions.iter().any(hit) != (rules.default == Verdict::Allow)
    }

    #[test]
    fn programs_decide_as_the_rules_do() {
        for text in [
            "deny a",
            "allow a",
            "deny a, allow c 1:3 rwm, allow c 1:5 r, allow c *:* m, allow b 8:* rw",
            "allow a, deny c 1:1 w, deny b 8:0 rwm, deny c 5:* m",
        ] {
            let rules = Rules::of(&spec(text)).unwrap();
            let program = emit(&rules);
            for kind in [Kind::Block, Kind::Char] {
                for (access, major, minor) in (1..8).flat_map(|access| {
                    [(1, 1), (1, 3), (1, 5), (5, 0), (8, 0), (8, 1), (9, 9)]
                        .map(|(a, b)| (access, a, b))
                }) {
                    assert_eq!(
                        run(&program, kind, access, major, minor),
                        expected(&rules, kind, access, major, minor),
                        "{text}: {kind:?} {major}:{minor} {access}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_program_is_as_long_as_its_rules() {
        let rules = Rules::of(&spec("deny a, allow c 1:3 rwm")).unwrap();
        let program = emit(&rules);
        // Reading the context, three tests and an answer, the default's answer.
        assert_eq!(program.len(), 6 + 5 + 2);
        let kind = Instruction { code: 0x55, registers: 2, offset: 4, immediate: 2 };
        assert_eq!(program[6], kind);
    }
}
