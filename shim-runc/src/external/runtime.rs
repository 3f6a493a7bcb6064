//! Which runtime drives a container, and where it keeps its state.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use shim_core::{
    Context, Error, Kind, Result,
    model::{ContainerId, Namespace},
};

use crate::programs::find;

/// Where containerd's own shim has runtimes keep their state.
const ROOT: &str = "/run/containerd/runc";

/// What the options say about a runtime.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    /// An absolute path, or a name to look up in `PATH`.
    pub(crate) binary_name: String,
    /// Where it keeps the state of all namespaces; empty for the usual place.
    pub(crate) root: String,
    /// Cgroups are made by systemd.
    pub(crate) systemd_cgroup: bool,
    /// Saves and restores processes; empty for what the runtime finds.
    pub(crate) criu_path: String,
}

/// A runtime that was found: what a later `delete` needs to know of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Runtime {
    pub(super) binary: PathBuf,
    /// Where it keeps the state of this namespace.
    pub(super) root: PathBuf,
    pub(super) systemd_cgroup: bool,
    /// Empty for what the runtime finds.
    pub(super) criu: String,
    /// More of what stands before every verb.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) flags: Vec<String>,
}

impl Runtime {
    /// Looks the runtime up.
    ///
    /// # Errors
    /// `InvalidArgument`, with the option's name, when there is no such executable file.
    pub(super) fn find(asked: &Asked, namespace: &Namespace) -> Result<Self> {
        let name = &asked.binary_name;
        let binary = find(name).with_context(|| format!("option BinaryName: {name}"));
        let root = if asked.root.is_empty() { ROOT } else { &asked.root };
        if !Path::new(root).is_absolute() {
            return Err(Error::invalid(format!("option Root: {root}: it is no absolute path")));
        }
        Ok(Self {
            binary: binary.map_err(|err| err.with_kind(Kind::InvalidArgument))?,
            root: Path::new(root).join(namespace),
            systemd_cgroup: asked.systemd_cgroup,
            criu: asked.criu_path.clone(),
            flags: Vec::new(),
        })
    }

    /// Looks a runtime up that has nothing but flags.
    ///
    /// # Errors
    /// `InvalidArgument` when there is no such executable file.
    pub(super) fn at(binary: &str, root: PathBuf, flags: Vec<String>) -> Result<Self> {
        let binary = find(binary).map_err(|err| err.with_kind(Kind::InvalidArgument))?;
        Ok(Self { binary, root, systemd_cgroup: false, criu: String::new(), flags })
    }

    /// The file's name, for errors.
    pub(super) fn name(&self) -> String {
        self.binary.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Whether it has a container of that id, as its state's place tells: a directory, or with runsc
    /// a file. Ask before what must not hit another, for runsc takes the beginning of an id for the
    /// whole.
    pub(super) fn knows(&self, id: &ContainerId) -> bool {
        if self.root.join(id).exists() {
            return true;
        }
        let start = format!("{id}_sandbox:");
        let mut entries = fs::read_dir(&self.root).into_iter().flatten().flatten();
        entries.any(|entry| entry.file_name().as_encoded_bytes().starts_with(start.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(name: &str) -> Result<Runtime> {
        let asked = Asked { binary_name: name.to_owned(), ..Asked::default() };
        Runtime::find(&asked, &Namespace::parse("k8s.io").unwrap())
    }

    #[test]
    fn a_runtime_is_a_name_in_path_or_an_absolute_path() {
        assert!(asked("sh").unwrap().binary.ends_with("sh"));
        let runtime = asked("/bin/sh").unwrap();
        assert_eq!((runtime.binary.as_path(), runtime.name().as_str()), ("/bin/sh".as_ref(), "sh"));
        assert_eq!(runtime.root, Path::new("/run/containerd/runc/k8s.io"));
    }

    #[test]
    fn a_container_is_known_by_its_whole_id() {
        let dir = tempfile::tempdir().unwrap();
        let mut runtime = asked("sh").unwrap();
        runtime.root = dir.path().to_owned();
        let knows = |id: &str| runtime.knows(&ContainerId::parse(id).unwrap());
        assert!(!knows("c1"));
        fs::create_dir(dir.path().join("c10")).unwrap();
        fs::write(dir.path().join("g10_sandbox:g10.state"), "").unwrap();
        assert!(knows("c10") && knows("g10"));
        assert!(!knows("c1") && !knows("g1"));
    }

    #[test]
    fn one_that_cannot_be_run_is_refused_by_option_and_path() {
        for bad in ["/nowhere/runc", "no-such-runtime", "./runc", "/etc/passwd", "/tmp"] {
            let err = asked(bad).unwrap_err();
            assert_eq!(err.kind(), Kind::InvalidArgument, "{bad}");
            let told = format!("{err:#}");
            assert!(told.contains("BinaryName") && told.contains(bad), "{told}");
        }
        let relative =
            Asked { binary_name: "sh".to_owned(), root: "state".to_owned(), ..Asked::default() };
        let err = Runtime::find(&relative, &Namespace::parse("n").unwrap()).unwrap_err();
        assert!(err.to_string().contains("option Root: state"), "{err}");
    }
}
