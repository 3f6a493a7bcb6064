//! A small model of a container's life, and random sequences of calls held against it.
//!
//! Every call has an outcome that the model knows beforehand: it succeeds, it is refused, or the
//! contract leaves it open. A sequence that ends otherwise is shortened, call by call, to the least
//! that still shows the fault.

mod life;
mod op;
mod random;
mod shrink;
mod walk;

pub(crate) use self::random::Random;
pub(crate) use self::shrink::shortest;
pub(crate) use self::walk::walk;

use self::op::Op;
pub(crate) use self::op::Sequence;

/// A random sequence of that many calls.
pub(crate) fn sequence(random: &mut Random, length: usize) -> Vec<Op> {
    (0..length).map(|_| Op::any(random)).collect()
}
