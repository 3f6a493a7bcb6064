//! An observation: values by the names of their fields.

use std::collections::BTreeMap;

use serde_json::Value;

/// All that was seen of one bundle with one runtime.
#[derive(Debug, Default)]
pub(super) struct Fields(BTreeMap<String, String>);

impl From<BTreeMap<String, String>> for Fields {
    fn from(all: BTreeMap<String, String>) -> Self {
        Self(all)
    }
}

impl Fields {
    pub(super) fn all(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    /// Adds a value. A field that is there already was seen once more: it gets a number.
    pub(super) fn add(&mut self, name: &str, value: impl Into<String>) {
        let mut name = name.to_owned();
        let mut count = 1;
        let first = name.clone();
        while self.0.contains_key(&name) {
            count += 1;
            name = format!("{first}#{count}");
        }
        self.0.insert(name, value.into());
    }

    /// Adds a value with all that is in it: `above.field`. A list is one value.
    pub(super) fn add_all(&mut self, above: &str, value: &Value) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    self.add_all(&format!("{above}.{name}"), value);
                }
            }
            Value::String(text) => self.add(above, text.clone()),
            Value::Array(all) if all.iter().all(Value::is_string) => {
                let all: Vec<&str> = all.iter().filter_map(Value::as_str).collect();
                self.add(above, all.join(" "));
            }
            other => self.add(above, other.to_string()),
        }
    }

    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Whether the runtime did not make the container at all.
    pub(super) fn is_refusal(&self) -> bool {
        ["create.code", "start.code"]
            .into_iter()
            .any(|name| self.value(name).is_some_and(|code| code != "0") && !self.has_program())
    }

    /// Whether the container's program has run.
    fn has_program(&self) -> bool {
        self.names().any(|name| name.starts_with("inside") || name == "text")
    }
}
