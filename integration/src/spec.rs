//! `config.json` for what `ctr` has no flag for: containerd's default, and changes to it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use shim_client::SpecBuilder;

use crate::image;

/// An OCI runtime spec.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec(Value);

pub use shim_client::CAPABILITIES;

impl Spec {
    /// What containerd would make for `args` on a root file system outside its snapshots.
    #[must_use]
    pub fn new(rootfs: &Path, cgroup: &str, args: &[&str]) -> Self {
        let default = SpecBuilder::new("", "").args(args).env(&[image::PATH]).build();
        Self(default)
            // The oldest runtime in use refuses what is newer.
            .set("/ociVersion", json!("1.0.2"))
            .set("/root/path", json!(rootfs))
            .set("/linux/cgroupsPath", json!(cgroup))
    }

    /// Sets the value at a JSON pointer, such as `/linux/resources/pids`; the parent has to exist.
    ///
    /// # Panics
    /// When it does not, which is the test's own fault.
    #[must_use]
    pub fn set(mut self, pointer: &str, value: Value) -> Self {
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer starts with a slash");
        self.0.pointer_mut(parent).expect("the parent exists")[key] = value;
        self
    }

    /// Adds a value to the list at a JSON pointer.
    ///
    /// # Panics
    /// When there is no such list.
    #[must_use]
    pub fn push(mut self, pointer: &str, value: Value) -> Self {
        let list = self.0.pointer_mut(pointer).and_then(Value::as_array_mut);
        list.expect("the list exists").push(value);
        self
    }

    /// It as JSON.
    #[must_use]
    pub fn json(&self) -> &Value {
        &self.0
    }

    /// Writes it to a file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, file: &Path) -> Result<()> {
        fs::write(file, self.0.to_string()).with_context(|| format!("write {}", file.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_reaches_what_is_not_there_yet() {
        let spec = Spec::new(Path::new("/r"), "/c", &["true"])
            .set("/linux/resources/pids", json!({ "limit": 1 }))
            .push("/linux/namespaces", json!({ "type": "user" }));
        assert_eq!(spec.0["linux"]["resources"]["pids"]["limit"], 1);
        assert_eq!(spec.0["linux"]["namespaces"][5]["type"], "user");
    }
}
