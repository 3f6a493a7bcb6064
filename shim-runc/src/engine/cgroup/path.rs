//! Where a container's cgroup is, below the root of each hierarchy.

use std::{fmt, path::Path};

use shim_core::{Context, Error, Result};

use super::systemd::unit::{Owner, Unit};

/// The field of a spec that says where.
const FIELD: &str = "linux.cgroupsPath";

/// A checked path below the hierarchies' roots: absolute, without `..`, never a root itself.
///
/// A relative path is taken from the root too. There is one that is none.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CgroupPath(String);

/// Who makes the cgroups of containers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Driver {
    /// The engine, by their directories and files.
    #[default]
    Files,
    /// systemd, as units of its own; the engine only writes limits into their files.
    Systemd,
    /// Nobody, unless the spec says where: containers stay in the cgroup of their maker, who is a user
    /// that may make none.
    Nobody,
}

/// Where a container's cgroup is, and which unit it is if systemd makes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) path: CgroupPath,
    pub(crate) unit: Option<Unit>,
}

/// What stands for a path where there is none; others begin with a slash.
const NOWHERE: &str = "none";

impl CgroupPath {
    /// The path of a container that has no cgroup of its own.
    pub(super) fn nowhere() -> Self {
        Self(NOWHERE.to_owned())
    }

    pub(super) fn is_nowhere(&self) -> bool {
        self.0 == NOWHERE
    }

    /// Reads what [`Self::as_str`] was.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub(crate) fn recorded(path: &str) -> Result<Self> {
        if path == NOWHERE { Ok(Self::nowhere()) } else { Self::parse(path) }
    }

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

    /// The path that a spec asks for (`linux.cgroupsPath`), else `/ABOVE/ID`.
    ///
    /// # Errors
    /// As [`CgroupPath::parse`].
    pub(crate) fn of(spec: Option<&Path>, above: &str, id: &str) -> Result<Self> {
        match text(spec)? {
            Some(path) => Self::parse(path).context(FIELD),
            // Both are ids, so neither can climb.
            None => Ok(Self(format!("/{above}/{id}"))),
        }
    }

    /// The path, which starts with a slash unless it is none.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The path as one to append to a hierarchy's mount point.
    pub(super) fn relative(&self) -> &str {
        &self.0[1..]
    }
}

impl Place {
    /// The place that a spec asks for (`linux.cgroupsPath`): with files a path, else `/ABOVE/ID`; with
    /// systemd a unit, else that of `:runc:ID`.
    ///
    /// # Errors
    /// `InvalidArgument` for what is neither.
    pub(crate) fn of(driver: Driver, spec: Option<&Path>, above: &str, id: &str) -> Result<Self> {
        match driver {
            Driver::Nobody if text(spec)?.is_none() => Ok(CgroupPath::nowhere().into()),
            Driver::Files | Driver::Nobody => CgroupPath::of(spec, above, id).map(Self::from),
            Driver::Systemd => {
                let owner = Owner::of_host();
                let unit = Unit::of(text(spec)?, id, owner)?;
                let path = CgroupPath::parse(&unit.path(owner)?).context(FIELD)?;
                Ok(Self { path, unit: Some(unit) })
            }
        }
    }
}

impl From<CgroupPath> for Place {
    fn from(path: CgroupPath) -> Self {
        Self { path, unit: None }
    }
}

/// The text of a spec's path, if it has one.
fn text(spec: Option<&Path>) -> Result<Option<&str>> {
    let path = spec.filter(|path| !path.as_os_str().is_empty());
    path.map(|path| path.to_str().ok_or_else(|| Error::invalid("not UTF-8").context(FIELD)))
        .transpose()
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
    fn who_may_make_none_has_none_unless_told_where() {
        let place = |path: Option<&str>| {
            Place::of(Driver::Nobody, path.map(Path::new), "above", "c1").unwrap().path
        };
        assert!(place(None).is_nowhere() && place(Some("")).is_nowhere());
        assert_eq!(CgroupPath::recorded(place(None).as_str()).unwrap(), place(None));
        assert_eq!(place(Some("none")).as_str(), "/none");
        assert_eq!(CgroupPath::recorded("/a").unwrap().as_str(), "/a");
    }

    #[test]
    fn a_missing_path_is_made_of_namespace_and_id() {
        let of = |spec: Option<&str>| CgroupPath::of(spec.map(Path::new), "k8s.io", "c1");
        assert_eq!(of(None).unwrap().as_str(), "/k8s.io/c1");
        assert_eq!(of(Some("")).unwrap().as_str(), "/k8s.io/c1");
        assert_eq!(of(Some("/pod/c1")).unwrap().as_str(), "/pod/c1");
        let err = of(Some("/../etc")).unwrap_err();
        assert_eq!(format!("{err:#}"), r#"linux.cgroupsPath: cgroup path "/../etc" has a `..`"#);
    }

    #[test]
    fn the_same_text_is_a_path_or_a_unit() {
        let of = |driver, spec: &str| Place::of(driver, Some(Path::new(spec)), "k8s.io", "c1");
        let text = "a.slice:p:x";
        let files = of(Driver::Files, text).unwrap();
        assert_eq!((files.path.as_str(), files.unit), ("/a.slice:p:x", None));
        let unit = of(Driver::Systemd, text).unwrap();
        assert!(unit.path.as_str().ends_with("/a.slice/p-x.scope"), "{}", unit.path);
        assert_eq!(unit.unit.unwrap().name(), "p-x.scope");
        assert_eq!(of(Driver::Systemd, "/a/b").unwrap_err().kind(), Kind::InvalidArgument);
    }
}
