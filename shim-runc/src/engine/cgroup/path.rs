//! Where a container's cgroup is, below the root of each hierarchy.

use std::{fmt, path::Path};

use shim_core::{
    Context, Error, Result,
    model::{ContainerId, Namespace},
};

/// A checked path below the hierarchies' roots: absolute, without `..`, never a root itself.
///
/// A relative path is taken from the root too.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CgroupPath(String);

impl CgroupPath {
    /// Parses a path as users write it.
    ///
    /// # Errors
    /// `InvalidArgument` when it names the root or climbs: a container never leaves its own place.
    pub(crate) fn parse(path: &str) -> Result<Self> {
        let invalid = |why| Error::invalid(format!("cgroup path {path:?} {why}"));
        let mut clean = String::with_capacity(path.len() + 1);
        for component in path.split('/') {
            match component {
                "" | "." => {}
                ".." => return Err(invalid("has a `..`")),
                name if name.contains(['\0', '\n']) => {
                    return Err(invalid("has a character that no cgroup's name can have"));
                }
                name => {
                    clean.push('/');
                    clean.push_str(name);
                }
            }
        }
        if clean.is_empty() {
            return Err(invalid("names no cgroup below the root"));
        }
        Ok(Self(clean))
    }

    /// The path that a spec asks for (`linux.cgroupsPath`), else `/<namespace>/<id>`.
    ///
    /// # Errors
    /// As [`CgroupPath::parse`].
    pub(crate) fn of(spec: Option<&Path>, namespace: &Namespace, id: &ContainerId) -> Result<Self> {
        match spec {
            Some(path) if !path.as_os_str().is_empty() => {
                let text = path.to_str().ok_or_else(|| Error::invalid("not UTF-8"));
                text.and_then(Self::parse).context("linux.cgroupsPath")
            }
            // Both are ids, so neither can climb.
            _ => Ok(Self(format!("/{namespace}/{id}"))),
        }
    }

    /// The path, which always starts with a slash.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The path as one to append to a hierarchy's mount point.
    pub(super) fn relative(&self) -> &str {
        &self.0[1..]
    }
}

impl fmt::Display for CgroupPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use shim_core::Kind;

    use super::*;

    #[test]
    fn paths_are_cleaned_and_kept_below_the_root() {
        for (given, clean) in [
            ("/k8s.io/c1", "/k8s.io/c1"),
            ("k8s.io/c1", "/k8s.io/c1"),
            ("//a/./b/", "/a/b"),
            ("/a..b/...", "/a..b/..."),
            ("system.slice:shim:c1", "/system.slice:shim:c1"),
        ] {
            assert_eq!(CgroupPath::parse(given).unwrap().as_str(), clean);
        }
        for bad in ["", "/", "/.", "..", "/a/../b", "/a/..", "/a\nb"] {
            assert_eq!(
                CgroupPath::parse(bad).unwrap_err().kind(),
                Kind::InvalidArgument,
                "{bad:?}"
            );
        }
    }

    #[test]
    fn a_missing_path_is_made_of_namespace_and_id() {
        let namespace = Namespace::parse("k8s.io").unwrap();
        let id = ContainerId::parse("c1").unwrap();
        let of = |spec: Option<&str>| CgroupPath::of(spec.map(Path::new), &namespace, &id);
        assert_eq!(of(None).unwrap().as_str(), "/k8s.io/c1");
        assert_eq!(of(Some("")).unwrap().as_str(), "/k8s.io/c1");
        assert_eq!(of(Some("/pod/c1")).unwrap().as_str(), "/pod/c1");
        let err = of(Some("/../etc")).unwrap_err();
        assert_eq!(format!("{err:#}"), r#"linux.cgroupsPath: cgroup path "/../etc" has a `..`"#);
    }
}
