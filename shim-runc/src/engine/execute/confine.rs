//! Security modules: what the next program is held to.

use std::{ffi::CStr, os::fd::AsFd};

use nix::{
    errno::Errno,
    fcntl::{OFlag, open},
    sys::stat::Mode,
};

use super::{Done, Fault, root};
use crate::engine::{step::Part, sys};

/// Has AppArmor confine the next program.
pub(super) fn apply_profile(profile: &CStr) -> Done {
    // The newer place is for hosts with several security modules.
    write(&[c"/proc/self/attr/apparmor/exec", c"/proc/self/attr/exec"], b"exec ", profile)
}

/// Has SELinux label the next program, and the keyring that is made before.
pub(super) fn apply_label(label: &CStr) -> Done {
    write(&[c"/proc/self/attr/selinux/keycreate", c"/proc/self/attr/keycreate"], b"", label)?;
    write(&[c"/proc/self/attr/selinux/exec", c"/proc/self/attr/exec"], b"", label)
}

/// Writes to the first of these files that there is, if it is a file of procfs.
fn write(files: &[&CStr], verb: &[u8], name: &CStr) -> Done {
    let mut file = Err(Errno::ENOENT);
    for path in files {
        file = open(*path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty());
        if !matches!(file, Err(Errno::ENOENT)) {
            break;
        }
    }
    let file = file?;
    if !root::is_proc(file.as_fd())? {
        return Err(Fault { part: Part::Proc, number: Errno::EXDEV as i32 });
    }
    let mut text = [0; 512];
    let name = name.to_bytes();
    let length = verb.len() + name.len();
    let room = text.get_mut(..length).ok_or(Errno::ENAMETOOLONG)?;
    room[..verb.len()].copy_from_slice(verb);
    room[verb.len()..].copy_from_slice(name);
    Ok(sys::write_whole(&file, room)?)
}
