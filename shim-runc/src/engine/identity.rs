//! Which container it is, as hooks and seccomp agents are told: the `state` of the OCI runtime spec
//! (`runtime.md`).

use std::{collections::HashMap, path::PathBuf};

use oci_spec::runtime::Spec;
use serde::Serialize;
use shim_core::model::{Bundle, Pid};

/// What of a container's state never changes.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    version: String,
    id: Box<str>,
    bundle: PathBuf,
    annotations: HashMap<String, String>,
}

/// A container's state.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct State<'a> {
    oci_version: &'a str,
    id: &'a str,
    status: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    bundle: &'a std::path::Path,
    annotations: &'a HashMap<String, String>,
}

impl Identity {
    pub(crate) fn of(spec: &Spec, id: &str, bundle: &Bundle) -> Self {
        Self {
            version: spec.version().clone(),
            id: id.into(),
            bundle: bundle.path().to_owned(),
            annotations: spec.annotations().clone().unwrap_or_default(),
        }
    }

    pub(crate) fn bundle(&self) -> &std::path::Path {
        &self.bundle
    }

    /// The state with what changes: `creating`, `created`, `running`, `stopped`, and the pid of the init
    /// process while there is one.
    pub(crate) fn state<'a>(&'a self, status: &'a str, pid: Option<Pid>) -> State<'a> {
        State {
            oci_version: &self.version,
            id: &self.id,
            status,
            pid: pid.map(Pid::get),
            bundle: &self.bundle,
            annotations: &self.annotations,
        }
    }
}
