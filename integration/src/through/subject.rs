//! A shim to be measured, as the command line names it.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Error, Result};
use shim_client::{ShimBinary, runtime_options};
use shim_protos::Any;

use crate::shim::GO;

/// A shim: its name for the report, its binary and its runtime options.
#[derive(Clone, Debug)]
pub struct Subject {
    /// What the report calls it.
    pub name: String,
    /// The binary's path, absolute. containerd takes that for a runtime's name.
    pub path: PathBuf,
    /// Options as they are named in containerd's configuration.
    options: Vec<(String, String)>,
}

impl FromStr for Subject {
    type Err = Error;

    /// Reads `NAME=PATH[,OPTION=VALUE]`.
    fn from_str(text: &str) -> Result<Self> {
        let mut parts = text.split(',').map(|part| {
            let (key, value) = part.split_once('=')?;
            Some((key.to_owned(), value.to_owned()))
        });
        let first = parts.next().flatten();
        let (name, path) = first.with_context(|| format!("{text:?}: expected NAME=PATH"))?;
        let options = parts.collect::<Option<_>>();
        let options = options.with_context(|| format!("{text:?}: expected OPTION=VALUE"))?;
        let path = Path::new(&path).canonicalize().with_context(|| format!("find {path}"))?;
        Ok(Self { name, path, options })
    }
}

impl Subject {
    /// The binary as our own client knows it.
    pub(super) fn binary(&self) -> Result<ShimBinary> {
        ShimBinary::resolve(&self.path.to_string_lossy())
    }

    /// The options as containerd hands them on.
    pub(super) fn message(&self) -> Result<Option<Any>> {
        runtime_options(&self.binary()?, &self.options)
    }

    /// The flags by which `ctr` runs it, if there are any: it can name the runtime only to
    /// containerd's own shim, and others take the `runc` that is on containerd's `PATH`.
    pub(super) fn flags(&self) -> Option<Vec<String>> {
        let runtime = |name: &str| vec!["--runtime".to_owned(), name.to_owned()];
        let program = self.options.iter().find(|(key, _)| key == "BinaryName");
        let is_go = self.path.file_name().is_some_and(|name| name == "containerd-shim-runc-v2");
        match program {
            Some((_, program)) if is_go => {
                let binary = ["--runc-binary".to_owned(), program.clone()];
                Some([runtime(GO).as_slice(), &binary].concat())
            }
            Some((_, program)) if !program.ends_with("/runc") => None,
            _ => Some(runtime(&self.path.to_string_lossy())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(file: &str, program: Option<&str>) -> Option<String> {
        let path = Path::new("/dir").join(file);
        let option = program.map(|program| ("BinaryName".to_owned(), program.to_owned()));
        let subject = Subject { name: "x".to_owned(), path, options: Vec::from_iter(option) };
        subject.flags().map(|flags| flags.join(" "))
    }

    #[test]
    fn ctr_names_a_runtime_only_to_the_go_shim() {
        let (go, rust) = ("containerd-shim-runc-v2", "containerd-shim-runc-v2-rs");
        let named = "--runtime io.containerd.runc.v2 --runc-binary /a/crun";
        assert_eq!(flags(go, Some("/a/crun")).as_deref(), Some(named));
        assert_eq!(flags(rust, Some("/a/crun")), None);
        let by_path = "--runtime /dir/containerd-shim-runc-v2-rs";
        assert_eq!(flags(rust, Some("/a/runc")).as_deref(), Some(by_path));
        let ours = flags("containerd-shim-native-v2", None);
        assert_eq!(ours.as_deref(), Some("--runtime /dir/containerd-shim-native-v2"));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["native", "native=/no/such/file", "x=/bin/sh,BinaryName"] {
            assert!(text.parse::<Subject>().is_err(), "{text}");
        }
    }
}
