//! What the shim asks of the stem, and the stem's answer.

use nix::errno::Errno;

use crate::engine::{
    step::Part,
    wire::{Field, Malformed, Reader, Slot, Text},
};

/// The longest request in bytes.
pub(super) const LENGTH: usize = 4096;
/// Requests are counted up to here and from 0 again.
pub(super) const NUMBERS: u64 = 1 << 31;
/// The length of an answer.
pub(super) const ANSWER: usize = 20;

/// Asks for one process. File 0 is the plan, file 1 the child's socket; the plan's own follow. Without
/// a plan, file 0 is that socket, and the process waits there for a request that has one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Request {
    /// Tells its answer from that of a request whose asker went away.
    pub(crate) number: u64,
    /// `CLONE_NEW*` flags of the new process.
    pub(crate) namespaces: u64,
    /// The length of the plan in bytes; 0 is none yet.
    pub(crate) plan: u64,
    /// How many files belong to the request, in how many messages whatever.
    pub(crate) files: u64,
    /// The directory of cgroup v2 that the process starts in.
    pub(crate) cgroup: Option<Slot>,
    /// The pid namespace that the process starts in: a namespace or a pidfd.
    pub(crate) pids: Option<Slot>,
    /// Offsets of a new time namespace, as `timens_offsets` takes them.
    pub(crate) clock: Option<Text>,
    /// Namespaces to join before the clone, by a process between the stem and the new one: a user
    /// namespace has no way back, so the stem can't enter it.
    pub(crate) joins: Vec<(Slot, u64)>,
}

/// The same as the stem reads it, without allocation.
#[derive(Debug)]
pub(super) struct Received<'bytes> {
    pub(super) number: u64,
    pub(super) namespaces: u64,
    pub(super) plan: u64,
    pub(super) files: u64,
    pub(super) cgroup: Option<Slot>,
    pub(super) pids: Option<Slot>,
    pub(super) clock: Option<&'bytes std::ffi::CStr>,
    pub(super) joins: <Vec<(Slot, u64)> as Field>::Lent<'bytes>,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// The request's.
    pub(super) number: u64,
    /// The process in between, if there was one; it has done its work.
    pub(super) between: i32,
    pub(super) outcome: Outcome,
}

/// Whether there is a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It exists; its pidfd comes along.
    Made { pid: i32 },
    /// There is none.
    Refused { part: Part, errno: Errno },
}

impl Request {
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.number.write(&mut bytes);
        self.namespaces.write(&mut bytes);
        self.plan.write(&mut bytes);
        self.files.write(&mut bytes);
        self.cgroup.write(&mut bytes);
        self.pids.write(&mut bytes);
        self.clock.write(&mut bytes);
        self.joins.write(&mut bytes);
        bytes
    }
}

impl<'bytes> Received<'bytes> {
    pub(super) fn read(bytes: &'bytes [u8]) -> Result<Self, Malformed> {
        let reader = &mut Reader::new(bytes);
        Ok(Self {
            number: u64::read(reader)?,
            namespaces: u64::read(reader)?,
            plan: u64::read(reader)?,
            files: u64::read(reader)?,
            cgroup: Option::<Slot>::read(reader)?,
            pids: Option::<Slot>::read(reader)?,
            clock: Option::<Text>::read(reader)?,
            joins: Vec::<(Slot, u64)>::read(reader)?,
        })
    }
}

impl Answer {
    pub(super) fn bytes(self) -> [u8; ANSWER] {
        let number = i32::try_from(self.number % NUMBERS).unwrap_or_default();
        let words = match self.outcome {
            Outcome::Made { pid } => [number, self.between, pid, 0, 0],
            Outcome::Refused { part, errno } => {
                [number, self.between, 0, (part as u32).cast_signed(), errno as i32]
            }
        };
        let mut bytes = [0; ANSWER];
        for (place, word) in bytes.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }

    pub(super) fn of(bytes: [u8; ANSWER]) -> Self {
        let mut words = [0; 5];
        for (word, four) in words.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = i32::from_ne_bytes(four.try_into().expect("chunks of four"));
        }
        let [number, between, pid, part, errno] = words;
        let outcome = if pid == 0 {
            let part = Part::of(part.cast_unsigned());
            Outcome::Refused { part, errno: Errno::from_raw(errno) }
        } else {
            Outcome::Made { pid }
        };
        Self { number: u64::from(number.unsigned_abs()), between, outcome }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_as_it_was_written() {
        let request = Request {
            number: 9,
            namespaces: 0x2000_0000,
            plan: 10,
            files: 3,
            cgroup: Some(Slot(2)),
            pids: None,
            clock: Some(Text::new("monotonic 1 0\n").unwrap()),
            joins: vec![(Slot(2), 5), (Slot(3), 6)],
        };
        let bytes = request.bytes();
        let received = Received::read(&bytes).unwrap();
        assert_eq!(received.cgroup, Some(Slot(2)));
        assert_eq!(received.clock, Some(c"monotonic 1 0\n"));
        assert_eq!(received.joins.last(), Some((Slot(3), 6)));
        assert!(Received::read(&bytes[..bytes.len() - 1]).is_err());
    }

    #[test]
    fn an_answer_is_read_as_it_was_written() {
        let outcomes = [
            Outcome::Made { pid: 77 },
            Outcome::Refused { part: Part::Clone, errno: Errno::EAGAIN },
        ];
        for outcome in outcomes {
            let answer = Answer { number: 5, between: 78, outcome };
            assert_eq!(Answer::of(answer.bytes()), answer);
        }
    }
}
