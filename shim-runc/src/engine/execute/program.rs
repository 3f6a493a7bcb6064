//! The last steps: the working directory, the home, the program.

use std::{ffi::CStr, os::fd::AsFd};

use nix::{
    errno::Errno,
    fcntl::{OFlag, open},
    sys::stat::{Mode, SFlag, fstat, stat},
    unistd::chdir,
};

use super::{Done, Executor, Fault, In};
use crate::engine::{
    step::Part,
    sys::{self, Vector},
    wire::{Several, Text},
};

/// `HOME=` and a directory, once it is known.
pub(super) struct Home {
    variable: [u8; Self::ROOM + 1],
    is_known: bool,
}

const NAME: &[u8] = b"HOME=";

impl Home {
    const ROOM: usize = 1024;

    pub(super) const fn new() -> Self {
        Self { variable: [0; Self::ROOM + 1], is_known: false }
    }

    fn set(&mut self, directory: &[u8]) {
        let (name, rest) = self.variable[..Self::ROOM].split_at_mut(NAME.len());
        // A directory that is too long is as good as none.
        let directory = if directory.len() <= rest.len() { directory } else { b"/" };
        name.copy_from_slice(NAME);
        rest.fill(0);
        rest[..directory.len()].copy_from_slice(directory);
        self.is_known = true;
    }

    fn variable(&self) -> Option<&CStr> {
        CStr::from_bytes_until_nul(&self.variable).ok().filter(|_| self.is_known)
    }
}

impl<'plan> Executor<'plan> {
    /// Enters the working directory. One that is closed to root is tried again as the user.
    pub(super) fn enter(&mut self, path: &CStr) -> Done {
        match chdir(path) {
            Err(Errno::EACCES | Errno::EPERM) => {
                self.must_enter = true;
                Ok(())
            }
            entered => Ok(entered?),
        }
    }

    pub(super) fn enter_again(&self, path: &CStr) -> Done {
        if self.must_enter {
            chdir(path)?;
        }
        // A descriptor of the host's, or a path through one, would lead out of the container.
        match sys::stands_below_root() {
            Ok(true) => Ok(()),
            Ok(false) => Err(Fault { part: Part::Outside, number: Errno::ENOENT as i32 }),
            Err(errno) => Err(Fault { part: Part::Outside, number: errno as i32 }),
        }
    }

    /// Finds the user's home directory, `/` for a user that is not listed.
    pub(super) fn find_home(&mut self, uid: u64) -> Done {
        let mut lines = Lines::open();
        while let Some(line) = lines.next() {
            let mut fields = line.split(|byte| *byte == b':');
            let found = fields.nth(2).and_then(|uid| std::str::from_utf8(uid).ok());
            if found.and_then(|found| found.parse().ok()) == Some(uid) {
                let home = fields.nth(2).filter(|home| !home.is_empty());
                self.home.set(home.unwrap_or(b"/"));
                return Ok(());
            }
        }
        self.home.set(b"/");
        Ok(())
    }

    /// Finds the program by Go's rule: a name with a slash is taken as it is, any other is looked
    /// for in the directories of `PATH`, and the first file that may be executed is it.
    pub(super) fn find_program(
        &mut self,
        name: &'plan CStr,
        candidates: Several<'plan, Text>,
    ) -> Done {
        let is_path = name.to_bytes().contains(&b'/');
        for candidate in candidates {
            match is_program(candidate) {
                Ok(()) => {
                    self.program = Some(candidate);
                    return Ok(());
                }
                Err(fault) if is_path => return Err(fault),
                Err(_) => {}
            }
        }
        Err(Fault { part: Part::NotInPath, number: Errno::ENOENT as i32 })
    }

    pub(super) fn execute(
        &self,
        arguments: Several<'plan, Text>,
        environment: Several<'plan, Text>,
    ) -> Done {
        let program =
            self.program.ok_or(Fault { part: Part::Plan, number: Errno::ENOENT as i32 })?;
        let argv = vector(arguments, None)?;
        let envp = vector(environment, self.home.variable())?;
        Err(sys::execute(program, &argv, &envp).into())
    }
}

/// Makes a table of texts, and of one more.
pub(super) fn vector<'text>(
    texts: Several<'text, Text>,
    last: Option<&'text CStr>,
) -> Done<Vector<'text>> {
    let mut vector = Vector::with_room(texts.left() + 1)?;
    for text in texts.chain(last) {
        vector.push(text)?;
    }
    Ok(vector)
}

fn is_program(candidate: &CStr) -> Done {
    let found = stat(candidate).part(Part::Stat)?;
    if SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR {
        return Err(Fault { part: Part::IsDirectory, number: Errno::EISDIR as i32 });
    }
    match sys::may_execute(candidate) {
        // A kernel or profile without faccessat2(2): the permission bits have to do.
        Err(Errno::ENOSYS | Errno::EPERM) if found.st_mode & 0o111 != 0 => Ok(()),
        may => may.part(Part::NotExecutable),
    }
}

/// The lines of the container's `/etc/passwd`, without allocation. A line longer than the buffer
/// is cut into pieces that match nothing.
struct Lines {
    file: Option<std::os::fd::OwnedFd>,
    buffer: [u8; 4096],
    start: usize,
    end: usize,
    /// How much may still be read.
    left: usize,
}

/// The most that is read of an image's `/etc/passwd`, which can be of any size.
const PASSWD: usize = 4 << 20;

impl Lines {
    fn open() -> Self {
        // O_NONBLOCK: the image may have a fifo there, which would never open.
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let file = open(c"/etc/passwd", flags, Mode::empty()).ok().filter(|file| {
            let kind = |mode| SFlag::from_bits_truncate(mode) & SFlag::S_IFMT;
            fstat(file).is_ok_and(|found| kind(found.st_mode) == SFlag::S_IFREG)
        });
        Self { file, buffer: [0; 4096], start: 0, end: 0, left: PASSWD }
    }

    fn next(&mut self) -> Option<&[u8]> {
        loop {
            let rest = &self.buffer[self.start..self.end];
            if let Some(length) = rest.iter().position(|byte| *byte == b'\n') {
                let start = self.start;
                self.start += length + 1;
                return Some(&self.buffer[start..start + length]);
            }
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if self.end == self.buffer.len() {
                self.end = 0;
            }
            let got = sys::read(self.file.as_ref()?.as_fd(), &mut self.buffer[self.end..]).ok()?;
            self.left = self.left.checked_sub(got)?;
            if got == 0 {
                // The last line may have no newline.
                let last = std::mem::take(&mut self.end);
                return Some(&self.buffer[..last]).filter(|line| !line.is_empty());
            }
            self.end += got;
        }
    }
}
