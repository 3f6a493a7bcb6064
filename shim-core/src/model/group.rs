//! Who shares a shim process: a container alone, a pod, or all containers of a namespace.

use std::str::FromStr;

use super::{Bundle, ContainerId};
use crate::error::{Error, Result};

/// The annotation that names a group outright; of containerd's own shim for runc.
const NAMED: &str = "io.containerd.runc.v2.group";

/// The annotation that CRI puts on each container of a pod.
const POD: &str = "io.kubernetes.cri.sandbox-id";

/// No id can be this: the group of a whole namespace is nobody else's.
const ALL: &str = "*";

/// Which containers share a shim when nobody has named a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    /// Those of a pod; one that is in none has its own shim.
    #[default]
    Pod,
    /// All of a containerd namespace, in pods or not.
    Namespace,
}

impl FromStr for Sharing {
    type Err = Error;

    /// Parses the word that users write.
    ///
    /// # Errors
    /// `InvalidArgument`, which names the words that there are.
    fn from_str(word: &str) -> Result<Self> {
        match word {
            "pod" => Ok(Self::Pod),
            "namespace" => Ok(Self::Namespace),
            _ => Err(Error::invalid(format!("grouping {word:?} is unknown: pod or namespace"))),
        }
    }
}

/// Bundles of one group share a shim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group(String);

impl Group {
    /// A shim for this container alone.
    pub fn alone(id: &ContainerId) -> Self {
        Self(id.as_str().to_owned())
    }

    /// One shim for a pod, or for a group named by annotation, else for the container alone.
    ///
    /// # Errors
    /// `InvalidArgument` when `config.json` does not parse.
    pub fn of_pod(id: &ContainerId, bundle: &Bundle) -> Result<Self> {
        let named = annotated(bundle, &[NAMED, POD])?;
        Ok(named.map_or_else(|| Self::alone(id), Self))
    }

    /// One shim for a namespace. A group named by annotation stays apart, for somebody has asked for
    /// that; a pod does not, for every container of CRI is in one.
    ///
    /// # Errors
    /// `InvalidArgument` when `config.json` does not parse.
    pub fn of_namespace(bundle: &Bundle) -> Result<Self> {
        let named = annotated(bundle, &[NAMED])?;
        Ok(Self(named.unwrap_or_else(|| ALL.to_owned())))
    }

    /// The name that goes into the socket's hash.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The first of the annotations that says something.
fn annotated(bundle: &Bundle, labels: &[&str]) -> Result<Option<String>> {
    let mut annotations = bundle.annotations()?;
    let mut named = labels.iter().filter_map(|label| annotations.remove(*label));
    Ok(named.find(|group| !group.is_empty()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const BOTH: &str = r#"{"annotations":{"io.kubernetes.cri.sandbox-id":"pod","io.containerd.runc.v2.group":"g"}}"#;
    const IN_POD: &str = r#"{"annotations":{"io.kubernetes.cri.sandbox-id":"pod"}}"#;

    fn groups(config: &str) -> [String; 2] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("config.json"), config).unwrap();
        let bundle = Bundle::new(dir.path()).unwrap();
        let id = ContainerId::parse("c1").unwrap();
        let groups = [Group::of_pod(&id, &bundle), Group::of_namespace(&bundle)];
        groups.map(|group| group.unwrap().as_str().to_owned())
    }

    #[test]
    fn the_runc_group_label_wins_over_the_pod() {
        assert_eq!(groups(BOTH)[0], "g");
        assert_eq!(groups(IN_POD)[0], "pod");
        assert_eq!(groups(r#"{"ociVersion":"1.0.2"}"#)[0], "c1");
        assert_eq!(groups(r#"{"annotations":null}"#)[0], "c1");
    }

    #[test]
    fn a_namespace_takes_pods_in_and_leaves_named_groups_out() {
        assert_eq!(groups(BOTH)[1], "g");
        assert_eq!(groups(IN_POD)[1], "*");
        assert_eq!(groups("{}")[1], "*");
        assert!(ContainerId::parse(ALL).is_err());
    }

    #[test]
    fn a_sharing_is_one_of_two_words() {
        assert_eq!("pod".parse::<Sharing>().unwrap(), Sharing::default());
        assert_eq!("namespace".parse::<Sharing>().unwrap(), Sharing::Namespace);
        for word in ["", "Namespace", "all"] {
            let err = word.parse::<Sharing>().unwrap_err();
            assert!(err.to_string().contains("pod or namespace"), "{err}");
        }
    }
}
