//! Paths of a spec, made plain.

use std::path::{Component, Path, PathBuf};

/// The path from the container's root, without `.`, `..` and doubled slashes. `..` at the root
/// stays there, as in the kernel.
pub(super) fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_leads_above_the_root() {
        for (path, expected) in
            [("/a//b/./c", "/a/b/c"), ("../../etc", "/etc"), ("/a/../../b", "/b"), ("", "/")]
        {
            assert_eq!(clean(Path::new(path)), Path::new(expected), "{path}");
        }
    }
}
