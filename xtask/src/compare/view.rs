//! What the probe and `state` tell, without what is another number each time.

use std::fs;

use serde_json::{Map, Value, json};

use super::field::Fields;

/// Adds the probe's report. `holder` is the process whose namespaces were there to be joined.
pub(super) fn inside(seen: &mut Fields, above: &str, mut report: Value, holder: Option<u32>) {
    // Who gave the questions knows them.
    report["process"]["argv"].take();
    if let Some(namespaces) = report["process"]["namespaces"].as_object_mut() {
        relate(namespaces, holder);
    }
    steady_ids(&mut report["process"]);
    seen.add_all(above, &report);
}

/// A namespace is the host's, the joined one, or a new one.
fn relate(namespaces: &mut Map<String, Value>, holder: Option<u32>) {
    for (kind, value) in namespaces {
        let is_of = |pid: &str| {
            let link = fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok();
            link.is_some_and(|link| value.as_str() == link.to_str())
        };
        let relation = if is_of("thread-self") {
            "the host's"
        } else if holder.is_some_and(|holder| is_of(&holder.to_string())) {
            "joined"
        } else {
            "new"
        };
        *value = json!(relation);
    }
}

/// Process ids say nothing but whose they are.
fn steady_ids(process: &mut Value) {
    let own = process["pid"].as_u64().unwrap_or_default();
    let told = |number: u64| match number {
        0 => "0",
        1 => "1",
        number if number == own => "its own",
        _ => "another's",
    };
    let text = |value: &Value| value.as_str().and_then(|text| text.parse().ok());
    for field in ["pid", "ppid"] {
        let number = process[field].as_u64().unwrap_or_default();
        process[field] = json!(told(number));
    }
    for field in ["ppid", "pgrp", "session", "tpgid"] {
        if let Some(number) = text(&process["stat"][field]) {
            process["stat"][field] = json!(told(number));
        }
    }
    // Spawning from a C library leaves its own two signals ignored, with whoever keeps that.
    let ignored = process["status"]["SigIgn"].as_str();
    if let Some(ignored) = ignored.and_then(|text| u64::from_str_radix(text, 16).ok()) {
        process["status"]["SigIgn"] = json!(format!("{:016x}", ignored & !(3 << 31)));
    }
    if let Some(status) = process["status"].as_object_mut() {
        for field in ["NSpid", "NSpgid", "NSsid"] {
            status.remove(field);
        }
    }
}

/// What the specification says of a state (`runtime.md`); runtimes add more.
const STATE: [&str; 6] = ["ociVersion", "id", "status", "pid", "bundle", "annotations"];

/// Adds the container's state: which fields there are, and what they say.
pub(super) fn state(seen: &mut Fields, above: &str, state: &Value) {
    let mut state = state.clone();
    if let Some(fields) = state.as_object_mut() {
        fields.retain(|name, _| STATE.contains(&name.as_str()));
        for (name, value) in fields {
            match name.as_str() {
                "pid" => *value = json!(if value.as_u64() == Some(0) { "0" } else { "a pid" }),
                // That of the state, not of the spec.
                "ociVersion" => *value = json!("a version"),
                _ => {}
            }
        }
    }
    seen.add_all(above, &state);
}
