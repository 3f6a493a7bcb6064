//! What a shim was started with, as far as its backends need it.

use std::sync::{Mutex, MutexGuard};

use shim_core::{Error, Host, Kind, Result, model::RuntimeOptions};

use crate::config::Config;

/// The host, and the options that `start` was given.
#[derive(Debug, Default)]
pub(crate) struct Started {
    host: Option<Host>,
    options: Mutex<Vec<RuntimeOptions>>,
}

impl Started {
    /// Takes the host, once it serves.
    pub(crate) fn open(&mut self, host: Host) {
        self.host = Some(host);
    }

    /// The host.
    ///
    /// # Errors
    /// `Unavailable` before it serves.
    pub(crate) fn host(&self) -> Result<&Host> {
        self.host.as_ref().ok_or_else(|| Error::new(Kind::Unavailable, "the backend is not open"))
    }

    /// Takes the options, which come with the first that is known of a container or a sandbox.
    pub(crate) fn learn(&self, options: &[RuntimeOptions]) {
        *self.options() = options.to_vec();
    }

    /// The administrator's choices, by these options and those of a request.
    ///
    /// # Errors
    /// As [`Config::find`].
    pub(crate) fn config(&self, more: &[RuntimeOptions]) -> Result<Config> {
        let mut options = self.options().clone();
        options.extend_from_slice(more);
        Config::find(&options)
    }

    fn options(&self) -> MutexGuard<'_, Vec<RuntimeOptions>> {
        self.options.lock().expect("nobody panics with it locked")
    }
}
