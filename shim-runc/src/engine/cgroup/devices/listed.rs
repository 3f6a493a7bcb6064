//! Device rules in systemd's words: those of `DeviceAllow=`, systemd.resource-control(5).

use std::collections::BTreeMap;

use super::rules::{Access, Devices, Kind, Rules, Verdict};

/// What each device may be used for, by its name for systemd, if nothing else is allowed. None for
/// rules that systemd has no words for: those that allow by default, or a minor number of any major.
pub(super) fn listed(rules: &Rules) -> Option<Vec<(String, String)>> {
    let Rules { default: Verdict::Deny, exceptions } = rules else { return None };
    entries(exceptions)
}

fn entries(exceptions: &BTreeMap<Devices, Access>) -> Option<Vec<(String, String)>> {
    let entry = |(devices, access): (&Devices, &Access)| {
        let kind = match devices.kind {
            Kind::Block => "block",
            Kind::Char => "char",
        };
        let name = match (devices.major, devices.minor) {
            (None, None) => format!("{kind}-*"),
            (Some(major), None) => format!("{kind}-{major}"),
            // It need not be there: systemd reads the numbers.
            (Some(major), Some(minor)) => format!("/dev/{kind}/{major}:{minor}"),
            (None, Some(_)) => return None,
        };
        Some((name, access.to_string()))
    };
    exceptions.iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::{super::rules::tests::spec, *};

    #[test]
    fn rules_are_said_in_systemds_words() {
        let said = |text: &str| {
            let listed = listed(&Rules::of(&spec(text)).unwrap())?;
            let entry = |(name, access)| format!("{name} {access}");
            Some(listed.into_iter().map(entry).collect::<Vec<_>>().join(", "))
        };
        assert_eq!(
            said("deny a, allow c 1:3 rwm, allow b *:* m, allow c 136:* rw").unwrap(),
            "block-* m, /dev/char/1:3 rwm, char-136 rw"
        );
        assert_eq!(said("deny a").unwrap(), "");
        for wordless in ["allow a", "allow a, deny c 1:3 r", "deny a, allow c *:3 r"] {
            assert_eq!(said(wordless), None, "{wordless}");
        }
    }
}
