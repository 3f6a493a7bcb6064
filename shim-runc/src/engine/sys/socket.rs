//! Messages with descriptors over a `SOCK_SEQPACKET` socket, without any allocation.

use std::{
    mem,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    ptr,
};

use libc::cmsghdr;
use nix::errno::Errno;

use super::Result;

/// The most descriptors that one message carries (`SCM_MAX_FD`).
pub(crate) const FILES_PER_MESSAGE: usize = 253;

/// `CMSG_SPACE` of a full message, in words of eight bytes: a header of 16 bytes, then the ints.
const CONTROL_WORDS: usize = 2 + FILES_PER_MESSAGE.div_ceil(2);

type Control = [u64; CONTROL_WORDS];

/// Descriptors that came with messages; closed when dropped.
#[derive(Debug)]
pub(crate) struct Files {
    raw: [RawFd; Self::ROOM],
    count: usize,
}

impl Files {
    /// The most descriptors that one request can carry.
    pub(crate) const ROOM: usize = 1024;

    /// Holds nothing yet.
    pub(crate) const fn new() -> Self {
        Self { raw: [-1; Self::ROOM], count: 0 }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Lends one; EBADF when there is none of that number.
    pub(crate) fn get(&self, index: usize) -> Result<BorrowedFd<'_>> {
        let raw = self.raw[..self.count].get(index).ok_or(Errno::EBADF)?;
        // SAFETY: it is open until `self` is dropped or cleared, which the borrow prevents.
        Ok(unsafe { BorrowedFd::borrow_raw(*raw) })
    }

    /// Puts a descriptor into the place of another one, which is closed; EBADF when there is none.
    pub(crate) fn replace(&mut self, index: usize, file: OwnedFd) -> Result<()> {
        let place = self.raw[..self.count].get_mut(index).ok_or(Errno::EBADF)?;
        let old = mem::replace(place, std::os::fd::IntoRawFd::into_raw_fd(file));
        // SAFETY: it came for us alone, and has just lost its place.
        drop(unsafe { OwnedFd::from_raw_fd(old) });
        Ok(())
    }

    /// Takes the last one out.
    pub(crate) fn take(&mut self) -> Option<OwnedFd> {
        self.count = self.count.checked_sub(1)?;
        // SAFETY: it came for us alone, and nothing else will close it: it is no longer counted.
        Some(unsafe { OwnedFd::from_raw_fd(self.raw[self.count]) })
    }

    /// Closes all of them, one call for all whose numbers have no gap: close_range(2).
    pub(crate) fn clear(&mut self) {
        let count = mem::take(&mut self.count);
        for run in self.raw[..count].chunk_by(|one, next| one + 1 == *next) {
            if let (Some(first), Some(last)) = (run.first(), run.last()) {
                // SAFETY: they came for us alone, and are no longer counted.
                unsafe { libc::syscall(libc::SYS_close_range, *first, *last, 0) };
            }
        }
    }

    fn add(&mut self, fd: OwnedFd) -> Result<()> {
        let place = self.raw.get_mut(self.count).ok_or(Errno::EMSGSIZE)?;
        *place = std::os::fd::IntoRawFd::into_raw_fd(fd);
        self.count += 1;
        Ok(())
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Sends one message, sendmsg(2).
pub(crate) fn send(socket: BorrowedFd<'_>, bytes: &[u8], files: &[BorrowedFd<'_>]) -> Result<()> {
    send_some(socket, bytes, files).map(drop)
}

/// The same, and how many bytes went: over a stream they may be less than all.
pub(crate) fn send_some(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    files: &[BorrowedFd<'_>],
) -> Result<usize> {
    if files.len() > FILES_PER_MESSAGE {
        return Err(Errno::EMSGSIZE);
    }
    let mut control: Control = [0; CONTROL_WORDS];
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut message = message_of(&mut part);
    if !files.is_empty() {
        let size = u32::try_from(size_of_val(files)).map_err(|_| Errno::EMSGSIZE)?;
        message.msg_control = control.as_mut_ptr().cast();
        // SAFETY: plain arithmetic on the size of at most 253 ints.
        let space = unsafe { libc::CMSG_SPACE(size) };
        // SAFETY: as above.
        let length = unsafe { libc::CMSG_LEN(size) };
        message.msg_controllen = space as _;
        let header = cmsghdr {
            cmsg_len: length as _,
            cmsg_level: libc::SOL_SOCKET,
            cmsg_type: libc::SCM_RIGHTS,
        };
        let first = control.as_mut_ptr().cast::<cmsghdr>();
        // SAFETY: the buffer is aligned to eight bytes and begins with room for a header.
        unsafe { first.write(header) };
        // SAFETY: `first` is a header inside `control`.
        let place = unsafe { libc::CMSG_DATA(first) }.cast::<RawFd>();
        for (index, file) in files.iter().enumerate() {
            // SAFETY: `control` has room for FILES_PER_MESSAGE ints behind its header.
            let place = unsafe { place.add(index) };
            // SAFETY: as above; behind a header of 16 bytes an int is aligned.
            unsafe { place.write(file.as_raw_fd()) };
        }
    }
    loop {
        // SAFETY: `message` points to `bytes` and `control`, which live for the length of the call.
        let sent =
            unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
        match Errno::result(sent) {
            Err(Errno::EINTR) => {}
            sent => return usize::try_from(sent?).map_err(|_| Errno::EIO),
        }
    }
}

/// Receives one message, recvmsg(2); 0 bytes when the other end is closed. Descriptors that come
/// along are close-on-exec and go into `files`; EMSGSIZE when some were lost, all bytes being there.
pub(crate) fn receive(
    socket: BorrowedFd<'_>,
    bytes: &mut [u8],
    files: &mut Files,
) -> Result<usize> {
    let mut control: Control = [0; CONTROL_WORDS];
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let mut message = message_of(&mut part);
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of::<Control>() as _;
    let got = loop {
        let flags = libc::MSG_CMSG_CLOEXEC;
        // SAFETY: `message` points to `bytes` and `control`, which live for the length of the call.
        let got = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) };
        match Errno::result(got) {
            Err(Errno::EINTR) => {}
            got => break got?,
        }
    };
    keep_files(&message, files)?;
    if message.msg_flags & (libc::MSG_CTRUNC | libc::MSG_TRUNC) != 0 {
        return Err(Errno::EMSGSIZE);
    }
    usize::try_from(got).map_err(|_| Errno::EIO)
}

fn keep_files(message: &libc::msghdr, files: &mut Files) -> Result<()> {
    // SAFETY: the kernel filled the control buffer and set its length.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !header.is_null() {
        // SAFETY: a header that CMSG_FIRSTHDR or CMSG_NXTHDR returns is inside the buffer.
        let cmsghdr { cmsg_len, cmsg_level, cmsg_type } = unsafe { header.read() };
        if cmsg_level == libc::SOL_SOCKET && cmsg_type == libc::SCM_RIGHTS {
            // SAFETY: as above.
            let first = unsafe { libc::CMSG_DATA(header) }.cast::<RawFd>();
            // SAFETY: plain arithmetic.
            let empty = unsafe { libc::CMSG_LEN(0) } as usize;
            let count = cmsg_len.saturating_sub(empty) / size_of::<RawFd>();
            for index in 0..count {
                // SAFETY: the kernel wrote `count` ints behind the header.
                let place = unsafe { first.add(index) };
                // SAFETY: as above; behind a header of 16 bytes an int is aligned.
                let raw = unsafe { place.read() };
                // SAFETY: the kernel has just made this descriptor for us alone.
                files.add(unsafe { OwnedFd::from_raw_fd(raw) })?;
            }
        }
        // SAFETY: `header` is inside the buffer of `message`.
        header = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
    Ok(())
}

fn message_of(part: &mut libc::iovec) -> libc::msghdr {
    // SAFETY: all zeros is a message with no name, no parts and no control.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = ptr::from_mut(part);
    message.msg_iovlen = 1;
    message
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    use super::*;

    #[test]
    fn a_message_carries_as_many_files_as_the_kernel_allows() {
        let (left, right) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
                .unwrap();
        let many = [left.as_fd(); FILES_PER_MESSAGE];
        send(left.as_fd(), b"hello", &many).unwrap();
        let mut files = Files::new();
        let mut bytes = [0; 16];
        assert_eq!(receive(right.as_fd(), &mut bytes, &mut files), Ok(5));
        assert_eq!(files.count(), FILES_PER_MESSAGE);
        assert!(files.get(FILES_PER_MESSAGE - 1).is_ok());
        assert_eq!(files.get(FILES_PER_MESSAGE).unwrap_err(), Errno::EBADF);
        files.clear();
        drop(left);
        assert_eq!(receive(right.as_fd(), &mut bytes, &mut files), Ok(0));
    }
}
