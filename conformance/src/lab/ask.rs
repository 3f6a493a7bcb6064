//! What a case asks for: a container, and how it differs from a plain one.

use std::fmt;
use std::path::Path;

use serde_json::Value;
use shim_client::{BindMount, SpecBuilder};

use super::Lab;

/// A container's streams.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Io {
    /// `/dev/null`, all three.
    #[default]
    Null,
    /// Fifos, with a reader for both outputs.
    Pipes,
    /// A terminal, with a reader.
    Terminal,
    /// What goes into the request: stdin, stdout, stderr; nobody reads them.
    Uris(String, String, String),
}

/// A container that is asked for.
pub(crate) struct Ask {
    pub(super) id: Option<String>,
    pub(super) io: Io,
    args: Vec<String>,
    change: Box<dyn Fn(SpecBuilder) -> SpecBuilder>,
    edit: Box<dyn Fn(&mut Value)>,
}

impl Ask {
    /// A plain container that executes this.
    pub(crate) fn new(args: &[&str]) -> Self {
        Self {
            id: None,
            io: Io::Null,
            args: args.iter().map(ToString::to_string).collect(),
            change: Box::new(|spec| spec),
            edit: Box::new(|_| ()),
        }
    }

    /// The same for a script of the shell.
    pub(crate) fn sh(script: &str) -> Self {
        Self::new(&["/bin/sh", "-c", script])
    }

    /// Under that id, where another would be made up.
    pub(crate) fn id(self, id: &str) -> Self {
        Self { id: Some(id.to_owned()), ..self }
    }

    /// With these streams.
    pub(crate) fn io(self, io: Io) -> Self {
        Self { io, ..self }
    }

    /// With a spec changed so.
    pub(crate) fn spec_with(self, change: impl Fn(SpecBuilder) -> SpecBuilder + 'static) -> Self {
        Self { change: Box::new(change), ..self }
    }

    /// With the finished spec's JSON changed so.
    pub(crate) fn json_with(self, edit: impl Fn(&mut Value) + 'static) -> Self {
        Self { edit: Box::new(edit), ..self }
    }

    /// With a folder of the host's at `/mnt`.
    pub(crate) fn sharing(self, folder: &Path) -> Self {
        let mount =
            BindMount { source: folder.into(), destination: "/mnt".into(), read_only: false };
        self.spec_with(move |spec| spec.mount(&mount))
    }

    /// In that group of containers, which share a shim.
    pub(crate) fn group(self, group: &str) -> Self {
        let group = group.to_owned();
        self.spec_with(move |spec| spec.annotation("io.containerd.runc.v2.group", &group))
    }

    /// With the host's process ids, so that signals reach its init process like any other.
    pub(crate) fn host_pid(self) -> Self {
        self.json_with(|spec| {
            if let Some(namespaces) = spec["linux"]["namespaces"].as_array_mut() {
                namespaces.retain(|namespace| namespace["type"] != "pid");
            }
        })
    }

    pub(super) fn spec(&self, lab: &Lab, id: &str) -> Value {
        let args: Vec<&str> = self.args.iter().map(String::as_str).collect();
        let spec = (self.change)(lab.spec(id, &args));
        let terminal = self.io == Io::Terminal;
        let mut spec = if terminal { spec.terminal() } else { spec }.build();
        (self.edit)(&mut spec);
        spec
    }
}

impl fmt::Debug for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ask")
            .field("id", &self.id)
            .field("args", &self.args)
            .finish_non_exhaustive()
    }
}
