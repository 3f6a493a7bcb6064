//! A mount type's prefixes: what has to be done to a mount before it is one, `format/mkdir/overlay`.

use crate::{
    error::{Error, Result},
    model::Mount,
};

/// The type of an image that only becomes a device, for a later mount to use.
pub(super) const DEVICE: &str = "loop";

/// One thing to do to a mount, in the order of the prefixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Prefix {
    /// Fill in what the earlier mounts are.
    Format,
    /// Make directories, which the options name.
    MakeDirectories,
}

/// Takes the prefixes off a mount's type.
///
/// # Errors
/// `InvalidArgument` for a prefix that is unknown, or containerd's alone.
pub(super) fn split(kind: &str) -> Result<(Vec<Prefix>, &str)> {
    let (mut prefixes, mut rest) = (Vec::new(), kind);
    while let Some((prefix, after)) = rest.split_once('/') {
        prefixes.push(match prefix {
            "format" => Prefix::Format,
            "mkdir" => Prefix::MakeDirectories,
            _ => {
                let text =
                    format!("mount type {kind:?}: what {prefix:?} asks for is not for a shim");
                return Err(Error::invalid(text));
            }
        });
        rest = after;
    }
    Ok((prefixes, rest))
}

/// How many of the mounts are made for later ones alone, and not for the root filesystem: those
/// before the last one with a prefix, which is containerd's own rule, and what is no filesystem.
///
/// # Errors
/// As [`split`].
pub(super) fn count_apart(mounts: &[Mount]) -> Result<usize> {
    let mut apart = 0;
    for (n, each) in mounts.iter().enumerate() {
        let (prefixes, kind) = split(&each.kind)?;
        if !prefixes.is_empty() {
            apart = n;
        }
        if kind == DEVICE {
            apart = n + 1;
        }
    }
    if apart > 0 && apart == mounts.len() {
        return Err(Error::invalid("the last mount is a device: nothing is mounted from it"));
    }
    Ok(apart)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apart(kinds: &[&str]) -> Result<usize> {
        let mount = |kind: &&str| Mount { kind: (*kind).to_owned(), ..Mount::default() };
        count_apart(&kinds.iter().map(mount).collect::<Vec<_>>())
    }

    #[test]
    fn prefixes_are_taken_off_in_their_order() {
        use Prefix::{Format, MakeDirectories};
        assert_eq!(split("overlay").unwrap(), (vec![], "overlay"));
        assert_eq!(split("").unwrap(), (vec![], ""));
        let (prefixes, kind) = split("format/mkdir/overlay").unwrap();
        assert_eq!((prefixes, kind), (vec![Format, MakeDirectories], "overlay"));
        assert_eq!(split("mkdir/format/bind").unwrap().0, [MakeDirectories, Format]);
    }

    #[test]
    fn what_is_not_for_a_shim_is_refused() {
        for kind in ["mkfs/ext4", "format/mkfs/loop", "/overlay", "fuse/x"] {
            let err = split(kind).unwrap_err();
            assert!(err.to_string().contains(&format!("{kind:?}")), "{err}");
        }
    }

    #[test]
    fn mounts_before_the_last_with_a_prefix_are_apart() {
        assert_eq!(apart(&[]).unwrap(), 0);
        assert_eq!(apart(&["erofs", "bind"]).unwrap(), 0);
        assert_eq!(apart(&["format/bind"]).unwrap(), 0);
        assert_eq!(apart(&["ext4", "erofs", "format/mkdir/overlay", "tmpfs"]).unwrap(), 2);
        assert_eq!(apart(&["format/bind", "mkdir/bind"]).unwrap(), 1);
        assert_eq!(apart(&["loop", "format/ext4", "bind"]).unwrap(), 1);
        assert_eq!(apart(&["loop", "ext4"]).unwrap(), 1);
        apart(&["ext4", "format/loop"]).unwrap_err();
    }
}
