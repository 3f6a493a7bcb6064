//! Mounts below a directory: finding and undoing them.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

/// Mount points at or below `root`, in the order in which they were mounted.
///
/// A place that is mounted on twice is listed twice.
pub fn mounts_below(root: &Path) -> Result<Vec<PathBuf>> {
    let table = fs::read("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
    Ok(mount_points(&table).filter(|point| point.starts_with(root)).collect())
}

/// Undoes every mount at or below `root`, the youngest first.
///
/// A mount in use is detached: it disappears from the tree now and ends with its last user.
pub fn unmount_below(root: &Path) -> Result<()> {
    for point in mounts_below(root)?.iter().rev() {
        let result = match umount2(point, MntFlags::UMOUNT_NOFOLLOW) {
            Err(Errno::EBUSY) => umount2(point, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW),
            other => other,
        };
        match result {
            // EINVAL: no longer a mount, a parent's detachment took it along.
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
            Err(errno) => {
                return Err(errno).with_context(|| format!("unmount {}", point.display()));
            }
        }
    }
    Ok(())
}

/// The fifth field of each line, proc(5).
fn mount_points(table: &[u8]) -> impl Iterator<Item = PathBuf> {
    table
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .map(|field| PathBuf::from(unescape(field)))
}

/// Turns `\040` and the like, the kernel's way to write blanks in a field, into bytes.
fn unescape(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = tail
            .get(..3)
            .filter(|_| byte == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal {
            Some(value) => {
                bytes.push(value);
                rest = &tail[3..];
            }
            None => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_the_fifth_field_unescaped() {
        let table = b"36 35 98:0 / / rw shared:1 - ext4 /dev/vda rw\n\
            37 36 0:30 / /run/a\\040b\\134c rw - overlay overlay rw\n";
        let points: Vec<PathBuf> = mount_points(table).collect();
        assert_eq!(points, [Path::new("/"), Path::new("/run/a b\\c")]);
    }

    #[test]
    fn a_stray_backslash_stays() {
        assert_eq!(unescape(b"a\\9z"), "a\\9z");
        assert_eq!(unescape(b"a\\"), "a\\");
    }
}
