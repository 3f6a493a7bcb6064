//! The kernel's list of mounts, proc_pid_mountinfo(5).

use std::path::{Path, PathBuf};

/// A line of it, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mounted<'a> {
    pub(crate) id: &'a str,
    pub(crate) parent: &'a str,
    /// With the kernel's escapes.
    pub(crate) at: &'a str,
    pub(crate) kind: &'a str,
    pub(crate) options: &'a str,
}

impl<'a> Mounted<'a> {
    /// `31 23 0:28 / /sys/fs/cgroup rw,relatime shared:9 - tmpfs tmpfs rw,mode=755`
    pub(crate) fn parse(line: &'a str) -> Option<Self> {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ');
        let (id, parent, at) = (left.next()?, left.next()?, left.nth(2)?);
        let mut right = right.split(' ');
        Some(Self { id, parent, at, kind: right.next()?, options: right.nth(1).unwrap_or("") })
    }

    /// The mount point without the kernel's `\040` for a blank and the like.
    pub(crate) fn path(&self) -> PathBuf {
        if !self.at.contains('\\') {
            return PathBuf::from(self.at);
        }
        let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
        let plain = escapes
            .iter()
            .fold(self.at.to_owned(), |text, (escape, plain)| text.replace(escape, plain));
        Path::new(&plain).to_owned()
    }
}
