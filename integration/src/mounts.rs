//! The mounts of this mount namespace.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// A mount, as `/proc/self/mountinfo` lists it.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Mount {
    /// The kernel's number; given again only after an unmount.
    pub id: u32,
    /// Where it is mounted.
    pub target: PathBuf,
    /// The file system's type.
    pub kind: String,
    /// Options of the file system: for a cgroup hierarchy its controllers.
    pub options: String,
}

/// Every mount, in the order of mounting.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn all() -> Result<Vec<Mount>> {
    let text = fs::read_to_string("/proc/self/mountinfo").context("read the list of mounts")?;
    text.lines().map(|line| parse(line).with_context(|| format!("odd mount: {line}"))).collect()
}

/// Removes a folder with all that is in it, unless something is mounted there: what a bind mount
/// shows may be the machine's own files.
///
/// # Errors
/// When there is such a mount, or removing fails.
pub fn remove_dir_all(dir: &Path) -> Result<()> {
    let mounted = all()?.into_iter().find(|mount| mount.target.starts_with(dir));
    if let Some(mount) = mounted {
        bail!("{} is mounted", mount.target.display());
    }
    fs::remove_dir_all(dir).with_context(|| format!("remove {}", dir.display()))
}

/// `ID PARENT MAJ:MIN ROOT TARGET OPTIONS TAGS… - TYPE SOURCE SUPER_OPTIONS`
fn parse(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ');
    let id = left.next()?.parse().ok()?;
    let target = unescape(left.nth(3)?).into();
    let mut right = right.split(' ');
    let kind = right.next()?.to_owned();
    Some(Mount { id, target, kind, options: right.nth(1).unwrap_or_default().to_owned() })
}

/// The kernel writes blanks and backslashes as three octal digits.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (escape, plain)| text.replace(escape, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_tags_and_a_blank_is_read() {
        let mount = parse("36 35 98:0 / /a\\040b rw,noatime shared:1 - cgroup none rw,cpu");
        let expect = Mount {
            id: 36,
            target: "/a b".into(),
            kind: "cgroup".to_owned(),
            options: "rw,cpu".to_owned(),
        };
        assert_eq!(mount, Some(expect));
    }
}
