//! Device rules as cgroup v1 understands them: a default, and exceptions from it.
//!
//! A rule for all devices (`a`) sets the default and forgets the exceptions; other rules add or
//! take back exceptions, one kind of access at a time. v2 has no rules of its own, so the same
//! result is what its program enforces.

use std::{collections::BTreeMap, fmt};

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};
use shim_core::{Error, Result};

/// What happens to an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Allow,
    Deny,
}

/// Block or character devices, with the numbers of `BPF_DEVCG_DEV_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Block = 1,
    Char = 2,
}

/// Devices of one kind; a missing number stands for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Devices {
    pub(super) kind: Kind,
    pub(super) major: Option<u32>,
    pub(super) minor: Option<u32>,
}

/// Kinds of access, as a set with the bits of `BPF_DEVCG_ACC_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Access(pub(super) u8);

impl Access {
    pub(super) const ALL: Self = Self(7);
    const BITS: [(char, u8); 3] = [('r', 2), ('w', 4), ('m', 1)];

    fn parse(text: &str) -> Option<Self> {
        let bit =
            |letter| Self::BITS.iter().find(|(known, _)| *known == letter).map(|(_, bit)| bit);
        let set = text.chars().try_fold(0, |set, letter| Some(set | bit(letter)?))?;
        (set != 0).then_some(Self(set))
    }

    fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// The default, and the exceptions from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rules {
    pub(super) default: Verdict,
    pub(super) exceptions: BTreeMap<Devices, Access>,
}

/// A line to write: to `devices.allow` or `devices.deny`.
pub(super) type Line = (Verdict, String);

impl Rules {
    /// What a spec's list comes to, applied in order to a cgroup that allows nothing.
    ///
    /// # Errors
    /// `InvalidArgument` for a rule that v1 would silently leave without effect.
    pub(super) fn of(list: &[LinuxDeviceCgroup]) -> Result<Self> {
        let mut rules = Self::all(Verdict::Deny);
        for rule in list {
            let verdict = if rule.allow() { Verdict::Allow } else { Verdict::Deny };
            match devices(rule)? {
                None => rules = Self::all(verdict),
                Some((devices, access)) => rules.apply(verdict, devices, access)?,
            }
        }
        Ok(rules)
    }

    /// What `devices.list` tells. Of a cgroup that allows by default it tells no exceptions.
    pub(super) fn of_list(text: &str) -> Option<Self> {
        let mut rules = Self::all(Verdict::Deny);
        for line in text.lines() {
            let mut parts = line.split([' ', ':']);
            let kind = match parts.next()? {
                "a" => return Some(Self::all(Verdict::Allow)),
                "b" => Kind::Block,
                "c" => Kind::Char,
                _ => return None,
            };
            let mut number = || match parts.next()? {
                "*" => Some(None),
                number => number.parse().ok().map(Some),
            };
            let devices = Devices { kind, major: number()?, minor: number()? };
            let access = Access::parse(parts.next()?)?;
            rules.add(devices, access);
        }
        Some(rules)
    }

    /// The lines that turn one state into this one, touching as little as can be. Without a known
    /// state, or out of one that allows by default, everything is set anew.
    pub(super) fn lines_from(&self, current: Option<&Self>) -> Vec<Line> {
        let known = current
            .filter(|current| current.default == Verdict::Deny && self.default == Verdict::Deny);
        let mut lines = Vec::new();
        if known.is_none() {
            lines.push((self.default, "a *:* rwm".to_owned()));
        }
        let none = BTreeMap::new();
        let old = known.map_or(&none, |current| &current.exceptions);
        let missing = |devices, access: Access, from: &BTreeMap<Devices, Access>| {
            let rest = from.get(devices).map_or(access, |has| access.without(*has));
            (!rest.is_empty()).then(|| line(devices, rest))
        };
        for (devices, &access) in old {
            lines.extend(missing(devices, access, &self.exceptions).map(|l| (self.default, l)));
        }
        for (devices, &access) in &self.exceptions {
            lines.extend(missing(devices, access, old).map(|l| (self.default.opposite(), l)));
        }
        lines
    }

    /// A default without exceptions.
    pub(super) fn all(default: Verdict) -> Self {
        Self { default, exceptions: BTreeMap::new() }
    }

    fn apply(&mut self, verdict: Verdict, devices: Devices, access: Access) -> Result<()> {
        if verdict == self.default {
            self.take_back(devices, access)
        } else {
            self.add(devices, access);
            Ok(())
        }
    }

    fn add(&mut self, devices: Devices, access: Access) {
        self.exceptions.entry(devices).or_insert(Access(0)).0 |= access.0;
    }

    /// The kernel keeps exceptions as they were written, so a part of a wider one can't be taken
    /// back: it would say nothing and change nothing.
    fn take_back(&mut self, devices: Devices, access: Access) -> Result<()> {
        let Devices { kind, major, minor } = devices;
        let wider = [
            Devices { kind, major: None, minor },
            Devices { kind, major, minor: None },
            Devices { kind, major: None, minor: None },
        ];
        for wide in wider.into_iter().filter(|wide| *wide != devices) {
            if self.exceptions.get(&wide).is_some_and(|has| has.0 & access.0 != 0) {
                return Err(Error::invalid(format!(
                    "device rule {:?} takes back a part of {:?}, which cgroups can't do",
                    line(&devices, access),
                    line(&wide, self.exceptions[&wide]),
                )));
            }
        }
        if let Some(has) = self.exceptions.get_mut(&devices) {
            *has = has.without(access);
            if has.is_empty() {
                self.exceptions.remove(&devices);
            }
        }
        Ok(())
    }
}

impl Verdict {
    fn opposite(self) -> Self {
        match self {
            Self::Allow => Self::Deny,
            Self::Deny => Self::Allow,
        }
    }
}

/// Reads a rule of a spec; `None` is a rule for all devices.
fn devices(rule: &LinuxDeviceCgroup) -> Result<Option<(Devices, Access)>> {
    let invalid = |what: &str| Error::invalid(format!("device rule {rule:?}: {what}"));
    let kind = match rule.typ().unwrap_or(LinuxDeviceType::A) {
        // As the kernel does, whatever else such a rule says.
        LinuxDeviceType::A => return Ok(None),
        LinuxDeviceType::B => Kind::Block,
        LinuxDeviceType::C => Kind::Char,
        _ => return Err(invalid("the type is none of a, b and c")),
    };
    let number = |number: Option<i64>| match number {
        None | Some(-1) => Ok(None),
        Some(number) => match i32::try_from(number) {
            Ok(_) if number >= 0 => Ok(u32::try_from(number).ok()),
            _ => Err(invalid("no device has such a number")),
        },
    };
    let devices = Devices { kind, major: number(rule.major())?, minor: number(rule.minor())? };
    let access = rule.access().as_deref().and_then(Access::parse);
    Ok(Some((devices, access.ok_or_else(|| invalid("the access is not made of r, w and m"))?)))
}

fn line(devices: &Devices, access: Access) -> String {
    let kind = match devices.kind {
        Kind::Block => 'b',
        Kind::Char => 'c',
    };
    format!("{kind} {}:{} {access}", Number(devices.major), Number(devices.minor))
}

struct Number(Option<u32>);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(number) => number.fmt(f),
            None => f.write_str("*"),
        }
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Self::BITS
            .iter()
            .filter(|(_, bit)| self.0 & bit != 0)
            .try_for_each(|(c, _)| write!(f, "{c}"))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Reads rules as people write them: `allow c 1:3 rw`.
    pub(crate) fn spec(text: &str) -> Vec<LinuxDeviceCgroup> {
        let rule = |line: &str| {
            let parts: Vec<_> = line.trim().split([' ', ':']).collect();
            let number = |text: &str| text.parse::<i64>().ok();
            let mut json = serde_json::json!({ "allow": parts[0] == "allow", "type": parts[1] });
            if parts.len() > 2 {
                json["major"] = number(parts[2]).into();
                json["minor"] = number(parts[3]).into();
                json["access"] = parts[4].into();
            }
            serde_json::from_value(json).unwrap()
        };
        text.split(',').map(rule).collect()
    }

    fn lines(text: &str, current: Option<&str>) -> String {
        let current = current.map(|list| Rules::of_list(list).unwrap());
        let rules = Rules::of(&spec(text)).unwrap();
        let lines = rules.lines_from(current.as_ref());
        lines
            .iter()
            .map(|(verdict, line)| format!("{verdict:?} {line}"))
            .collect::<Vec<_>>()
            .join(", ")
    }

    #[test]
    fn a_list_is_written_after_its_default() {
        assert_eq!(
            lines("deny a, allow c 1:3 rw, allow c 1:3 m, allow b *:* m", None),
            "Deny a *:* rwm, Allow b *:* m, Allow c 1:3 rwm"
        );
        assert_eq!(lines("allow a", None), "Allow a *:* rwm");
        assert_eq!(lines("allow a, deny c 1:1 w", None), "Allow a *:* rwm, Deny c 1:1 w");
        assert_eq!(lines("allow c 5:1 r, deny a", None), "Deny a *:* rwm");
    }

    #[test]
    fn exceptions_are_taken_back_bit_by_bit() {
        assert_eq!(
            lines("deny a, allow c 1:3 rwm, deny c 1:3 w", None),
            "Deny a *:* rwm, Allow c 1:3 rm"
        );
        assert_eq!(lines("deny a, allow c 1:3 rw, deny c 1:3 rwm", None), "Deny a *:* rwm");
        // Never given, so nothing to take back.
        assert_eq!(lines("deny a, deny c 1:3 w", None), "Deny a *:* rwm");
    }

    #[test]
    fn only_differences_are_written_to_a_live_cgroup() {
        let current = "c 1:3 rwm\nb *:* m\n";
        assert_eq!(lines("deny a, allow c 1:3 rwm, allow b *:* m", Some(current)), "");
        assert_eq!(
            lines("deny a, allow c 1:3 rw, allow c 1:5 r", Some(current)),
            "Deny b *:* m, Deny c 1:3 m, Allow c 1:5 r"
        );
        // What such a cgroup denies can't be read.
        assert_eq!(lines("allow a", Some("a *:* rwm\n")), "Allow a *:* rwm");
        assert_eq!(
            lines("deny a, allow c 1:3 r", Some("a *:* rwm\n")),
            "Deny a *:* rwm, Allow c 1:3 r"
        );
    }

    #[test]
    fn holes_and_nonsense_are_refused() {
        for bad in [
            "deny a, allow c *:* rwm, deny c 1:3 r",
            "deny a, allow c 1:* rw, deny c 1:3 w",
            "allow p 1:3 rw",
            "allow c 1:3 x",
            "allow c 4294967296:3 r",
        ] {
            let err = Rules::of(&spec(bad)).unwrap_err();
            assert_eq!(err.kind(), shim_core::Kind::InvalidArgument, "{bad}");
        }
        // Another kind of access is no hole.
        assert!(Rules::of(&spec("deny a, allow c *:* m, deny c 1:3 w")).is_ok());
    }

    #[test]
    fn a_list_that_is_not_understood_is_not_guessed_at() {
        assert_eq!(Rules::of_list("c 1:3\n"), None);
        assert_eq!(Rules::of_list("x 1:3 r\n"), None);
        assert_eq!(Rules::of_list("").unwrap(), Rules::all(Verdict::Deny));
    }
}
