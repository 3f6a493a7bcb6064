//! Properties that a spec's annotations name, `org.systemd.property.NAME`, with values in the text
//! form of GVariant, as runc takes them.

use std::collections::{BTreeMap, HashMap};

use shim_core::{Context, Error, Result};

use super::{bus::Value, gvariant, properties::Property};

const PREFIX: &str = "org.systemd.property.";
/// Microseconds.
const SECOND: u64 = 1_000_000;

/// The properties among the annotations, in the order of their names.
///
/// # Errors
/// `InvalidArgument` for one that makes no sense.
pub(crate) fn properties(annotations: &HashMap<String, String>) -> Result<Vec<Property>> {
    let named = |(key, text): (&'_ String, _)| Some((key.strip_prefix(PREFIX)?.to_owned(), text));
    let sorted: BTreeMap<String, &String> = annotations.iter().filter_map(named).collect();
    let property = |(name, text): (String, &String)| {
        property(&name, text).with_context(|| format!("annotation {PREFIX}{name}"))
    };
    sorted.into_iter().map(property).collect()
}

fn property(name: &str, text: &str) -> Result<Property> {
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(Error::invalid(format!("{name:?} is no property's name")));
    }
    let value = gvariant::parse(text)?;
    // Unit files have seconds; the properties that stand for them have microseconds.
    match name.strip_suffix("Sec") {
        Some(stem) if stem.ends_with(|last: char| last.is_ascii_lowercase()) => {
            Ok(Property::new(format!("{stem}USec"), Value::Uint64(microseconds(&value)?)))
        }
        _ => Ok(Property::new(name, value)),
    }
}

fn microseconds(value: &Value) -> Result<u64> {
    let seconds = match *value {
        Value::Byte(seconds) => Some(seconds.into()),
        Value::Int16(seconds) => u64::try_from(seconds).ok(),
        Value::Uint16(seconds) => Some(seconds.into()),
        Value::Int32(seconds) => u64::try_from(seconds).ok(),
        Value::Uint32(seconds) => Some(seconds.into()),
        Value::Int64(seconds) => u64::try_from(seconds).ok(),
        Value::Uint64(seconds) => Some(seconds),
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
        Value::Double(seconds) if seconds >= 0.0 => return Ok((seconds * 1e6) as u64),
        _ => None,
    };
    seconds
        .and_then(|seconds| seconds.checked_mul(SECOND))
        .ok_or_else(|| Error::invalid("not a number of seconds"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(key: &str, value: &str) -> Result<Vec<Property>> {
        properties(&HashMap::from([(key.to_owned(), value.to_owned())]))
    }

    #[test]
    fn annotations_are_properties() {
        for (key, text, name, value) in [
            ("TimeoutStopUSec", "uint64 123456789", "TimeoutStopUSec", Value::Uint64(123_456_789)),
            ("TimeoutStopSec", "123", "TimeoutStopUSec", Value::Uint64(123_000_000)),
            ("TimeoutStopSec", "0.5", "TimeoutStopUSec", Value::Uint64(500_000)),
            ("SendSIGHUP", "true", "SendSIGHUP", Value::Bool(true)),
            ("CollectMode", "'inactive'", "CollectMode", Value::Text("inactive".to_owned())),
        ] {
            let found = of(&format!("{PREFIX}{key}"), text).unwrap();
            assert_eq!(found, [Property::new(name, value)], "{key}");
        }
        assert_eq!(of("org.systemd.other", "?").unwrap(), []);
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_its_name() {
        for (key, text) in [
            ("X", "what?"),
            ("", "1"),
            ("A/B", "1"),
            ("TimeoutStopSec", "-1"),
            ("TimeoutStopSec", "'long'"),
        ] {
            let err = of(&format!("{PREFIX}{key}"), text).unwrap_err();
            assert!(format!("{err:#}").starts_with("annotation org.systemd.property."), "{err:#}");
        }
    }
}
