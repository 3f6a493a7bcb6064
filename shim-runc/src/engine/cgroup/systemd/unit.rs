//! A container's unit: its name, its slice and the cgroup that systemd gives it, by the rules of
//! runc's docs/systemd.md and systemd.slice(5).

use serde::{Deserialize, Serialize};
use shim_core::{Context, Error, Result};

const SCOPE: &str = ".scope";
const SLICE: &str = ".slice";
/// The slice that all others are in.
const ROOT: &str = "-.slice";
/// systemd's limit on a unit's name, systemd.unit(5).
const LONGEST: usize = 255;

/// A unit of systemd that a container runs in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Unit {
    name: String,
    /// The slice that it is in.
    slice: String,
}

/// What kind of unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// For processes that somebody else makes; it ends with the last of them.
    Scope,
    /// For other units; it stays.
    Slice,
}

/// Whose systemd makes the unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The machine's.
    System,
    /// That of a user, by the id.
    User(u32),
}

impl Unit {
    /// The unit that `linux.cgroupsPath` asks for, `SLICE:PREFIX:NAME`; without one it is that of
    /// `:runc:ID`.
    ///
    /// # Errors
    /// `InvalidArgument` for anything else.
    pub(crate) fn of(path: Option<&str>, id: &str, owner: Owner) -> Result<Self> {
        let Some(path) = path.filter(|path| !path.is_empty()) else {
            return Self::named(owner.default_slice(), "runc", id).context("the container's id");
        };
        let parts: Vec<_> = path.split(':').collect();
        let [slice, prefix, name] = parts[..] else {
            let why = "is not SLICE:PREFIX:NAME, which it has to be with systemd's cgroups";
            return Err(Error::invalid(format!("linux.cgroupsPath {path:?} {why}")));
        };
        let slice = match slice {
            "" => owner.default_slice(),
            "-" => ROOT,
            slice => slice,
        };
        let name = if name.is_empty() { id } else { name };
        Self::named(slice, prefix, name).with_context(|| format!("linux.cgroupsPath {path:?}"))
    }

    fn named(slice: &str, prefix: &str, name: &str) -> Result<Self> {
        expand(slice)?;
        let name = if name.ends_with(SLICE) {
            expand(name)?;
            name.to_owned()
        } else {
            format!("{prefix}-{name}{SCOPE}")
        };
        check(&name)?;
        Ok(Self { name, slice: slice.to_owned() })
    }

    /// The unit's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The name of the slice that it is in.
    pub(crate) fn slice(&self) -> &str {
        &self.slice
    }

    /// A scope, or a slice.
    pub(crate) fn kind(&self) -> Kind {
        if self.name.ends_with(SLICE) { Kind::Slice } else { Kind::Scope }
    }

    /// Its cgroup, below the root of the hierarchies.
    ///
    /// # Errors
    /// When the names make no sense, which were checked.
    pub(crate) fn path(&self, owner: Owner) -> Result<String> {
        let above = match owner {
            Owner::System => String::new(),
            // Where systemd's own user@.service is.
            Owner::User(uid) => format!("/user.slice/user-{uid}.slice/user@{uid}.service"),
        };
        let path = match self.kind() {
            // Its name says where it is, whatever slice it was asked to be in.
            Kind::Slice => expand(&self.name)?,
            Kind::Scope => format!("{}/{}", expand(&self.slice)?, self.name),
        };
        Ok(above + &path)
    }
}

impl Owner {
    fn default_slice(self) -> &'static str {
        match self {
            Self::System => "system.slice",
            Self::User(_) => "user.slice",
        }
    }
}

/// The path of a slice: each dash leads one down, so `a-b.slice` is `/a.slice/a-b.slice`.
fn expand(slice: &str) -> Result<String> {
    let invalid = |why| Error::invalid(format!("slice {slice:?} {why}"));
    check(slice)?;
    let Some(names) = slice.strip_suffix(SLICE) else {
        return Err(invalid("does not end in .slice"));
    };
    if slice == ROOT {
        return Ok(String::new());
    }
    let mut path = String::new();
    for (end, _) in names.match_indices('-').chain([(names.len(), "")]) {
        let name = &names[..end];
        if name.is_empty() || name.ends_with('-') {
            return Err(invalid("has an empty part between dashes"));
        }
        path.push('/');
        path.push_str(name);
        path.push_str(SLICE);
    }
    Ok(path)
}

/// Checks a unit's name: systemd would say less, and it becomes a part of paths.
fn check(name: &str) -> Result<()> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
    if name.len() > LONGEST {
        let why = format!("unit name {name:?} has more than {LONGEST} characters");
        return Err(Error::invalid(why));
    }
    match name.bytes().all(is_plain) {
        true => Ok(()),
        false => Err(Error::invalid(format!(
            "unit name {name:?} has a character that systemd does not allow"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use shim_core::Kind as ErrorKind;

    use super::*;

    #[test]
    fn a_path_names_a_unit_and_its_place() {
        for (path, name, at) in [
            ("", "runc-c1.scope", "/system.slice/runc-c1.scope"),
            ("::", "-c1.scope", "/system.slice/-c1.scope"),
            (":runc:x", "runc-x.scope", "/system.slice/runc-x.scope"),
            ("machine.slice:ctr:", "ctr-c1.scope", "/machine.slice/ctr-c1.scope"),
            ("a-b.slice:cri:x", "cri-x.scope", "/a.slice/a-b.slice/cri-x.scope"),
            (
                "kubepods-burstable-pod1_2.slice:cri-containerd:x",
                "cri-containerd-x.scope",
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice/\
                 cri-containerd-x.scope",
            ),
            ("-:p:x", "p-x.scope", "/p-x.scope"),
            ("-.slice:p:x", "p-x.scope", "/p-x.scope"),
            ("system.slice:p:a-b.slice", "a-b.slice", "/a.slice/a-b.slice"),
        ] {
            let unit = Unit::of(Some(path), "c1", Owner::System).unwrap();
            assert_eq!(unit.name(), name, "{path}");
            assert_eq!(unit.path(Owner::System).unwrap(), at, "{path}");
        }
        assert_eq!(Unit::of(None, "c1", Owner::System).unwrap().name(), "runc-c1.scope");
    }

    #[test]
    fn a_users_units_are_below_the_users_own() {
        let owner = Owner::User(1000);
        let unit = Unit::of(None, "c1", owner).unwrap();
        let above = "/user.slice/user-1000.slice/user@1000.service";
        assert_eq!(unit.path(owner).unwrap(), format!("{above}/user.slice/runc-c1.scope"));
        assert_eq!(unit.slice(), "user.slice");
    }

    #[test]
    fn what_is_no_unit_is_refused_by_the_fields_name() {
        for bad in [
            "/default/c1",
            "a:b",
            "a:b:c:d",
            "system:p:x",
            ".slice:p:x",
            "a--b.slice:p:x",
            "-a.slice:p:x",
            "a-.slice:p:x",
            "a.slice/b.slice:p:x",
            "system.slice:p:a/b",
            "system.slice:../p:x",
            "system.slice:p:a b",
            "system.slice:p:a--b.slice",
        ] {
            let err = Unit::of(Some(bad), "c1", Owner::System).unwrap_err();
            assert_eq!(err.kind(), ErrorKind::InvalidArgument, "{bad}");
            assert!(format!("{err:#}").starts_with("linux.cgroupsPath"), "{err:#}");
        }
        assert!(Unit::of(Some(&format!("::{}", "x".repeat(300))), "c1", Owner::System).is_err());
        assert!(Unit::of(None, "c+1", Owner::System).is_err());
    }

    #[test]
    fn a_slice_is_a_unit_of_its_own_kind() {
        let kind = |path| Unit::of(Some(path), "c1", Owner::System).unwrap().kind();
        assert_eq!(kind("::x"), Kind::Scope);
        assert_eq!(kind("::x.slice"), Kind::Slice);
    }
}
