//! From verdicts to a program of classic BPF.
//!
//! The program finds the ABI, then the call by binary search over ranges of numbers: most profiles
//! allow calls that stand side by side, so there are fewer ranges than calls, and a search takes
//! seven or eight steps.
//!
//! Jumps only go forward, so a program is written from its end: what an instruction jumps to is
//! already there. A conditional jump reaches over 255 instructions; a target further away gets a
//! long jump placed near by.

use std::collections::HashMap;

use super::{
    Instruction,
    abi::{Abi, Machine, X32_BIT},
    profile::{Action, Calls, Condition, Profile, Rule, Test, Verdict},
};

// Operations, of linux/bpf_common.h.
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;

// Where `struct seccomp_data` has what; the low half of an argument comes first.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

/// The number that a tracer sets to have a call left out.
const SKIPPED: u32 = u32::MAX;

/// How far a conditional jump is made to reach: a little less than it could, so that the long
/// jumps between it and its targets do not push them out of reach.
const REACH: usize = 250;

/// Compiles a profile.
pub(super) fn program(machine: Machine, profile: &Profile) -> Vec<Instruction> {
    let abis = machine.abis(&profile.listed);
    let mut code = Code::default();
    let mut sections = Vec::new();
    for abi in abis.iter().copied().filter(|abi| *abi != Abi::X32) {
        let mut ranges = Ranges::default();
        ranges.add_calls(0, abi, profile);
        if abi == Abi::X86_64 {
            if abis.contains(&Abi::X32) {
                ranges.add_calls(X32_BIT, Abi::X32, profile);
            } else {
                ranges.add(X32_BIT, Target::Return(Action::KILL_THREAD));
            }
        }
        ranges.add(SKIPPED, Target::Return(profile.default));
        let section = code.section(&ranges, profile.default);
        sections.push((abi, section));
    }
    let mut entry = code.answer(Action::KILL_THREAD);
    // The native ABI, which is the first, is asked for first.
    for (abi, section) in sections.into_iter().rev() {
        entry = code.branch(JUMP_EQUAL, abi.audit(), section, entry);
    }
    code.push(LOAD, ARCH);
    code.0.reverse();
    code.0
}

/// What a range of numbers leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Return(Action),
    /// The rules of this index.
    Check(usize),
}

/// Ranges of call numbers, each up to the next one's start; and the rules that some lead to.
#[derive(Debug, Default)]
struct Ranges {
    starts: Vec<(u32, Target)>,
    checks: Vec<(Vec<Rule>, Width)>,
}

/// How much of an argument is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Width {
    Narrow,
    Wide,
}

impl Ranges {
    /// Starts a range, after those that are there.
    fn add(&mut self, start: u32, target: Target) {
        self.starts.pop_if(|(last, _)| *last == start);
        if self.starts.last().is_none_or(|(_, last)| *last != target) {
            self.starts.push((start, target));
        }
    }

    /// Adds an ABI's calls, and a range after the last of them.
    fn add_calls(&mut self, base: u32, abi: Abi, profile: &Profile) {
        let Calls { verdicts, newest } = profile.calls(abi);
        let otherwise = |number| match newest {
            Some(newest) if number > newest => Target::Return(Action::ENOSYS),
            _ => Target::Return(profile.default),
        };
        self.add(base, otherwise(0));
        for (number, verdict) in verdicts {
            let target = match verdict {
                Verdict::Always(action) => Target::Return(action),
                Verdict::Check(rules) => {
                    let width = if abi.is_wide() { Width::Wide } else { Width::Narrow };
                    Target::Check(self.check((rules, width)))
                }
            };
            self.add(base + number, target);
            self.add(base + number + 1, otherwise(number + 1));
        }
    }

    /// The index of some rules; calls with the same ones share them.
    fn check(&mut self, check: (Vec<Rule>, Width)) -> usize {
        self.checks.iter().position(|known| *known == check).unwrap_or_else(|| {
            self.checks.push(check);
            self.checks.len() - 1
        })
    }
}

/// A program from its end.
#[derive(Debug, Default)]
struct Code(Vec<Instruction>);

/// An instruction, by how many there are from it to the end.
type Label = usize;

impl Code {
    fn section(&mut self, ranges: &Ranges, default: Action) -> Label {
        let mut answers = Answers::default();
        let mut checks = Vec::new();
        for (rules, width) in &ranges.checks {
            checks.push(self.rules(&mut answers, rules, *width, default));
        }
        self.search(&mut answers, &ranges.starts, &checks);
        self.push(LOAD, NUMBER)
    }

    /// Finds the range of a number. There is always one: the first starts at the least number.
    fn search(
        &mut self,
        answers: &mut Answers,
        ranges: &[(u32, Target)],
        checks: &[Label],
    ) -> Label {
        match *ranges {
            [(_, Target::Return(action))] => answers.near(self, action),
            [(_, Target::Check(index))] => checks[index],
            _ => {
                let (low, high) = ranges.split_at(ranges.len() / 2);
                let start = high[0].0;
                let high = self.search(answers, high, checks);
                let low = self.search(answers, low, checks);
                self.branch(JUMP_GREATER_OR_EQUAL, start, high, low)
            }
        }
    }

    fn rules(
        &mut self,
        answers: &mut Answers,
        rules: &[Rule],
        width: Width,
        default: Action,
    ) -> Label {
        let mut next = answers.near(self, default);
        for rule in rules.iter().rev() {
            let mut met = answers.near(self, rule.action);
            for condition in rule.conditions.iter().rev() {
                met = self.condition(condition, width, met, next);
            }
            next = met;
        }
        next
    }

    fn condition(
        &mut self,
        condition: &Condition,
        width: Width,
        met: Label,
        failed: Label,
    ) -> Label {
        let Condition { index, test, value } = *condition;
        let argument = ARGUMENTS + 8 * u32::from(index);
        match test {
            Test::Equal => self.masked(argument, width, u64::MAX, value, met, failed),
            Test::NotEqual => self.masked(argument, width, u64::MAX, value, failed, met),
            Test::Masked(mask) => self.masked(argument, width, mask, value, met, failed),
            Test::Greater => self.ordered(JUMP_GREATER, argument, width, value, met, failed),
            Test::LessOrEqual => self.ordered(JUMP_GREATER, argument, width, value, failed, met),
            Test::GreaterOrEqual => {
                self.ordered(JUMP_GREATER_OR_EQUAL, argument, width, value, met, failed)
            }
            Test::Less => self.ordered(JUMP_GREATER_OR_EQUAL, argument, width, value, failed, met),
        }
    }

    /// Both halves have to be equal.
    fn masked(
        &mut self,
        argument: u32,
        width: Width,
        mask: u64,
        value: u64,
        met: Label,
        failed: Label,
    ) -> Label {
        let (high_mask, low_mask) = halves(mask);
        let (high, low) = halves(value);
        let met = self.masked_half(argument, low_mask, low, met, failed);
        match width {
            Width::Narrow => met,
            Width::Wide => self.masked_half(argument + 4, high_mask, high, met, failed),
        }
    }

    fn masked_half(
        &mut self,
        half: u32,
        mask: u32,
        value: u32,
        met: Label,
        failed: Label,
    ) -> Label {
        self.branch(JUMP_EQUAL, value, met, failed);
        if mask != u32::MAX {
            self.push(AND, mask);
        }
        self.push(LOAD, half)
    }

    /// The high halves decide, unless they are equal.
    fn ordered(
        &mut self,
        test: u16,
        argument: u32,
        width: Width,
        value: u64,
        met: Label,
        failed: Label,
    ) -> Label {
        let (high, low) = halves(value);
        self.branch(test, low, met, failed);
        let low = self.push(LOAD, argument);
        match width {
            Width::Narrow => low,
            Width::Wide => {
                let not_greater = self.branch(JUMP_EQUAL, high, low, failed);
                self.branch(JUMP_GREATER, high, met, not_greater);
                self.push(LOAD, argument + 4)
            }
        }
    }

    fn answer(&mut self, action: Action) -> Label {
        self.push(RETURN, action.0)
    }

    fn branch(&mut self, test: u16, value: u32, met: Label, failed: Label) -> Label {
        let (met, failed) = (self.within_reach(met), self.within_reach(failed));
        let over = |label| u8::try_from(self.0.len() - label).expect("made to be within reach");
        let (jt, jf) = (over(met), over(failed));
        self.0.push(Instruction { code: test, jt, jf, k: value });
        self.0.len()
    }

    /// A label, or that of a long jump to it.
    fn within_reach(&mut self, label: Label) -> Label {
        let over = self.0.len() - label;
        if over <= REACH {
            return label;
        }
        self.push(JUMP, u32::try_from(over).expect("programs are shorter than 2^32"))
    }

    fn push(&mut self, code: u16, value: u32) -> Label {
        self.0.push(Instruction { code, jt: 0, jf: 0, k: value });
        self.0.len()
    }
}

/// Where answers stand, to use them again from near by.
#[derive(Debug, Default)]
struct Answers(HashMap<Action, Label>);

impl Answers {
    fn near(&mut self, code: &mut Code, action: Action) -> Label {
        match self.0.get(&action) {
            // Half the reach: what is near now will soon have moved away.
            Some(&label) if code.0.len() - label <= REACH / 2 => label,
            _ => {
                let label = code.answer(action);
                self.0.insert(action, label);
                label
            }
        }
    }
}

/// The high and the low half.
fn halves(value: u64) -> (u32, u32) {
    ((value >> 32) as u32, (value & 0xffff_ffff) as u32)
}
