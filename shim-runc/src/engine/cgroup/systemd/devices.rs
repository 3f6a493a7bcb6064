//! A spec's devices as properties. What systemd has no words for is left to our own program.

use oci_spec::runtime::LinuxDeviceCgroup;
use shim_core::Result;

use super::{bus::Value, properties::Property};
use crate::engine::cgroup::devices;

/// The properties for a spec's whole list.
///
/// # Errors
/// `InvalidArgument` for a rule that makes no sense.
pub(super) fn properties(list: &[LinuxDeviceCgroup]) -> Result<[Property; 2]> {
    let listed = devices::listed(list)?;
    // Without a policy systemd allows everything, and its program does not stand in ours' way.
    let policy = if listed.is_some() { "strict" } else { "auto" };
    let entry = |(name, access): (String, String)| {
        Value::Tuple(vec![Value::Text(name), Value::Text(access)])
    };
    let entries = listed.into_iter().flatten().map(entry).collect();
    Ok([
        Property::new("DevicePolicy", Value::Text(policy.to_owned())),
        Property::new("DeviceAllow", Value::Array("(ss)".to_owned(), entries)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_strict_unless_systemd_has_no_words_for_it() {
        let told = |text: &str| {
            let [policy, allow] = properties(&devices::spec(text)).unwrap();
            let Value::Array(_, entries) = allow.value else { panic!("no array") };
            (policy.value.as_text().unwrap().to_owned(), entries.len())
        };
        assert_eq!(told("deny a, allow c 1:3 rwm, allow c *:* m"), ("strict".to_owned(), 2));
        assert_eq!(told("allow a"), ("auto".to_owned(), 0));
    }
}
