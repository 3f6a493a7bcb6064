//! Seccomp profiles compiled to filters that the kernel runs at every system call.
//!
//! The compiler is our own: small, and nothing to install or to link. It agrees with runc and
//! libseccomp on what a profile means:
//! - Names that an ABI does not have are passed over, and so are rules that say what the default
//!   says.
//! - Of several rules for a call, one without conditions decides alone; else the first that
//!   matches does. Conditions of one rule must all hold, but when two look at the same argument,
//!   each stands for itself.
//! - Calls of an ABI that the profile does not list kill the thread.
//! - Calls that are newer than the newest one a profile knows fail with ENOSYS, so that a libc
//!   falls back, where an older kernel would have said the same.

mod abi;
mod assemble;
#[cfg(any(test, feature = "fuzzing"))]
mod interpret;
#[cfg(test)]
#[expect(unsafe_code, reason = "loads a filter into a thread of the test")]
mod kernel_tests;
#[cfg(test)]
mod naive;
mod profile;
#[cfg(test)]
mod tests;

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    io,
    sync::{Arc, Mutex},
};

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSeccompFilterFlag};
use shim_core::{Error, Kind, Result};

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use self::interpret::check_profile;
use self::{abi::Machine, profile::Profile};
use super::sys::NEW_LISTENER;

/// The longest program that the kernel takes, `BPF_MAXINSNS`.
const MAX_LENGTH: usize = 4096;

/// How many filters a cache holds: the containers of a pod seldom have more than two profiles.
const MAX_CACHED: usize = 4;

/// One instruction, `struct sock_filter`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Instruction {
    /// The operation.
    pub(crate) code: u16,
    /// How many instructions to jump over when a test holds.
    pub(crate) jt: u8,
    /// How many when it does not.
    pub(crate) jf: u8,
    /// The operation's constant.
    pub(crate) k: u32,
}

/// What seccomp(2) takes with `SECCOMP_SET_MODE_FILTER`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Filter {
    /// The program, at most 4096 instructions.
    pub(crate) program: Vec<Instruction>,
    /// `SECCOMP_FILTER_FLAG_*`.
    pub(crate) flags: u32,
}

/// Compiles a profile for the machine we run on.
///
/// # Errors
/// `InvalidArgument` for what makes no sense, `Unsupported` on a processor that we know nothing of.
pub(crate) fn compile(spec: &LinuxSeccomp) -> Result<Filter> {
    let machine = Machine::of_host().ok_or_else(|| {
        Error::new(Kind::Unsupported, "seccomp profiles on this kind of processor")
    })?;
    compile_for(machine, spec)
}

fn compile_for(machine: Machine, spec: &LinuxSeccomp) -> Result<Filter> {
    let profile = Profile::read(spec)?;
    let program = assemble::program(machine, &profile);
    if program.len() > MAX_LENGTH {
        let length = program.len();
        let text = format!("seccomp profile: {length} instructions, the kernel takes {MAX_LENGTH}");
        return Err(Error::invalid(text));
    }
    Ok(Filter { program, flags: flags(spec) })
}

/// Whether a profile gives any call to an agent.
pub(crate) fn notifies(spec: &LinuxSeccomp) -> bool {
    let mut calls = spec.syscalls().iter().flatten();
    calls.any(|call| call.action() == LinuxSeccompAction::ScmpActNotify)
}

fn flags(spec: &LinuxSeccomp) -> u32 {
    const TSYNC: u32 = 1 << 0;
    const LOG: u32 = 1 << 1;
    const SPEC_ALLOW: u32 = 1 << 2;
    const WAIT_KILLABLE_RECV: u32 = 1 << 5;
    let listens = if notifies(spec) { NEW_LISTENER } else { 0 };
    // As runc: a container without wishes is not slowed down by mitigations.
    let Some(flags) = spec.flags() else { return listens | SPEC_ALLOW };
    let bit = |flag: &LinuxSeccompFilterFlag| match flag {
        LinuxSeccompFilterFlag::SeccompFilterFlagTsync => TSYNC,
        LinuxSeccompFilterFlag::SeccompFilterFlagLog => LOG,
        LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => SPEC_ALLOW,
        LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => WAIT_KILLABLE_RECV,
    };
    let set = flags.iter().map(bit).fold(listens, |set, bit| set | bit);
    // The kernel refuses the one without a listener, to whom alone it means something, and the other
    // with one; the process that loads the filter has one thread.
    set & !(if listens == 0 { WAIT_KILLABLE_RECV } else { TSYNC })
}

/// Compiled filters by the hash of their profile. It may be shared between threads.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    /// A key that nobody outside knows: no profile can be made to pass for another.
    key: RandomState,
    /// The latest first.
    filters: Mutex<Vec<(u64, Arc<Filter>)>>,
}

impl Cache {
    /// Compiles a profile, or finds what it was compiled to before.
    ///
    /// # Errors
    /// As [`compile`].
    pub(crate) fn compile(&self, spec: &LinuxSeccomp) -> Result<Arc<Filter>> {
        let mut hash = Hash(self.key.build_hasher());
        serde_json::to_writer(&mut hash, spec)?;
        let hash = hash.0.finish();
        if let Some(found) = self.find(hash) {
            return Ok(found);
        }
        let filter = Arc::new(compile(spec)?);
        let mut filters = self.filters.lock().expect("nobody panics with the filters locked");
        filters.insert(0, (hash, Arc::clone(&filter)));
        filters.truncate(MAX_CACHED);
        Ok(filter)
    }

    fn find(&self, hash: u64) -> Option<Arc<Filter>> {
        let mut filters = self.filters.lock().expect("nobody panics with the filters locked");
        let index = filters.iter().position(|(known, _)| *known == hash)?;
        filters[..=index].rotate_right(1);
        Some(Arc::clone(&filters[0].1))
    }
}

/// Hashes what is written to it.
struct Hash<H>(H);

impl<H: Hasher> io::Write for Hash<H> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
