//! Running a program: the pointer tables of execve(2), and the memory they stand in.

use std::{
    ffi::CStr,
    fmt,
    marker::PhantomData,
    os::fd::{AsRawFd, BorrowedFd},
    ptr, slice,
};

use nix::errno::Errno;

use super::Result;

/// A NULL-terminated table of strings, as execve(2) wants arguments and environment.
///
/// It stands in memory of its own mapping: the process that needs it must not allocate.
pub(crate) struct Vector<'text> {
    start: *mut *const libc::c_char,
    room: usize,
    filled: usize,
    texts: PhantomData<&'text CStr>,
}

impl<'text> Vector<'text> {
    /// Makes a table with room for that many strings.
    pub(crate) fn with_room(room: usize) -> Result<Self> {
        let size = room
            .checked_add(1)
            .and_then(|all| all.checked_mul(size_of::<usize>()))
            .ok_or(Errno::EOVERFLOW)?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a fresh anonymous mapping touches no memory of ours.
        let start = unsafe { libc::mmap(ptr::null_mut(), size, protection, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        Ok(Self { start: start.cast(), room, filled: 0, texts: PhantomData })
    }

    /// Adds a string; a table that is full says E2BIG.
    pub(crate) fn push(&mut self, text: &'text CStr) -> Result<()> {
        if self.filled == self.room {
            return Err(Errno::E2BIG);
        }
        // SAFETY: `filled` is below `room`, so the place is inside the mapping.
        let place = unsafe { self.start.add(self.filled) };
        // SAFETY: the place is mapped, writable and aligned; mappings begin on a page.
        unsafe { place.write(text.as_ptr()) };
        self.filled += 1;
        Ok(())
    }
}

impl fmt::Debug for Vector<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vector({} of {})", self.filled, self.room)
    }
}

/// Replaces the program of this process, execve(2). Returns only when it failed.
pub(crate) fn execute(program: &CStr, arguments: &Vector<'_>, environment: &Vector<'_>) -> Errno {
    // SAFETY: both tables end with NULL, because a mapping starts out as zeros and has room for
    // one entry more than was pushed; their strings are borrowed by them.
    unsafe { libc::execve(program.as_ptr(), arguments.start, environment.start) };
    Errno::last()
}

/// Maps a file that nobody changes any more into memory, for as long as the process lives.
pub(crate) fn map_bytes(file: BorrowedFd<'_>, size: usize) -> Result<&'static [u8]> {
    if size == 0 {
        return Ok(&[]);
    }
    let (protection, flags) = (libc::PROT_READ, libc::MAP_PRIVATE);
    // SAFETY: a fresh mapping touches no memory of ours.
    let start =
        unsafe { libc::mmap(ptr::null_mut(), size, protection, flags, file.as_raw_fd(), 0) };
    if start == libc::MAP_FAILED {
        return Err(Errno::last());
    }
    // SAFETY: `size` bytes are mapped and never unmapped; the file is sealed against writing and
    // shrinking, so they don't change and reading them can't fault.
    Ok(unsafe { slice::from_raw_parts(start.cast::<u8>(), size) })
}
