//! Who the program runs as, and what it may do.

use nix::errno::Errno;

use super::{Done, Fault, In, word};
use crate::engine::{
    step::Part,
    sys::{self, Capabilities},
    wire::Several,
};

/// The most supplementary groups that a plan can have.
pub(crate) const GROUPS: usize = 1024;

/// Drops capabilities from the bounding set, and keeps the others over the change of ids.
pub(super) fn bound(bounding: u64) -> Done {
    for capability in (0..64).filter(|capability| bounding & (1 << capability) == 0) {
        match sys::drop_bounding(capability) {
            // The kernel knows no more than those before.
            Err(Errno::EINVAL) => break,
            dropped => dropped?,
        }
    }
    Ok(nix::sys::prctl::set_keepcaps(true)?)
}

/// Becomes the user that the spec asks for.
pub(super) fn set_ids(uid: u64, gid: u64, groups: Several<'_, u64>) -> Done {
    let mut all = [0_u32; GROUPS];
    let count = groups.left();
    let room =
        all.get_mut(..count).ok_or(Fault { part: Part::Groups, number: Errno::E2BIG as i32 })?;
    for (place, group) in room.iter_mut().zip(groups) {
        *place = word(group)?;
    }
    match sys::set_groups(room) {
        // A user namespace that denies setgroups(2) has no groups to drop either.
        Err(Errno::EPERM) if count == 0 => {}
        set => set.part(Part::Groups)?,
    }
    sys::set_group(word(gid)?).part(Part::Group)?;
    sys::set_user(word(uid)?).part(Part::User)?;
    Ok(nix::sys::prctl::set_keepcaps(false)?)
}

/// Sets the four sets that a program inherits.
pub(super) fn set(sets: Capabilities, ambient: u64) -> Done {
    sys::set_capabilities(sets)?;
    sys::clear_ambient().part(Part::Ambient)?;
    for capability in 0..64 {
        if ambient & (1 << capability) == 0 {
            continue;
        }
        match sys::raise_ambient(capability) {
            // The planner warned: what isn't permitted and inheritable can't be ambient.
            Ok(()) | Err(Errno::EPERM) => {}
            Err(errno) => return Err(Fault { part: Part::Ambient, number: errno as i32 }),
        }
    }
    Ok(())
}
