//! How many descriptors this process may have: as many as it can get, for a shim of many containers
//! has a dozen for each. What it starts gets what it was given itself.

use std::sync::OnceLock;

use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};

use crate::error::{Context, Result};

/// What this process was started with: soft, then hard. It has one limit, and so there is one of it.
static GIVEN: OnceLock<(rlim_t, rlim_t)> = OnceLock::new();

/// Raises the soft limit of descriptors to the hard one.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn raise_files() -> Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("read the limit of files")?;
    if soft == hard {
        return Ok(());
    }
    let (_, hard) = *GIVEN.get_or_init(|| (soft, hard));
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("raise the limit of files")
}

/// The soft and the hard limit of descriptors that are to be given back to whatever this process
/// starts, getrlimit(2); none where they are as they were.
pub fn given_files() -> Option<(u64, u64)> {
    GIVEN.get().copied()
}
