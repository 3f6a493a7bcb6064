//! Network interfaces that are files.

use std::{
    fs::File,
    mem,
    os::fd::{AsRawFd, OwnedFd},
};

use nix::errno::Errno;

use super::Result;

/// Makes a tap interface in the network namespace of this thread: each read and write is a frame, behind
/// a header of virtio's that lets large ones pass whole. It is gone when the file is closed.
///
/// See the kernel's networking/tuntap.
///
/// # Errors
/// EBUSY when the name is taken; ENAMETOOLONG for one that no interface can have.
pub(crate) fn open_tap(name: &str) -> Result<OwnedFd> {
    let opened = File::options().read(true).write(true).open("/dev/net/tun");
    let tun = opened.map_err(|err| err.raw_os_error().map_or(Errno::EIO, Errno::from_raw))?;
    // SAFETY: all zeros is an interface request with an empty name.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    if name.is_empty() || name.len() >= request.ifr_name.len() {
        return Err(Errno::ENAMETOOLONG);
    }
    for (place, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *place = byte.cast_signed() as libc::c_char;
    }
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags).map_err(|_| Errno::EOVERFLOW)?;
    // SAFETY: the ioctl reads and writes the request, which lives for the length of the call.
    let made = unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) };
    Errno::result(made)?;
    Ok(tun.into())
}
