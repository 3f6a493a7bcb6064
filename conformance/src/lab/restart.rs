//! A containerd that ends, and another that takes its place.

use std::fmt;
use std::rc::Rc;

use anyhow::{Context, Result};
use shim_client::{Answer, Bundle, Shim};

use super::guest::Guest;
use super::{Lab, procs};

/// A container whose containerd has ended: nobody is connected to its shim.
pub(crate) struct Left {
    bundle: Bundle,
    answer: Answer,
    back: Box<dyn FnOnce(Shim) -> Guest>,
}

impl Left {
    pub(super) fn new(shim: &Shim, back: Box<dyn FnOnce(Shim) -> Guest>) -> Self {
        Self { bundle: shim.bundle().clone(), answer: shim.answer.clone(), back }
    }
}

impl fmt::Debug for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Left").field("bundle", &self.bundle).finish_non_exhaustive()
    }
}

impl Lab {
    /// Closes the connection to a shim, and leaves its container as it is. Its pipes keep their
    /// readers.
    pub(crate) async fn leave(&self, guest: Rc<Guest>) -> Result<Left> {
        self.guests.borrow_mut().retain(|one| !Rc::ptr_eq(one, &guest));
        let guest = Rc::into_inner(guest).context("the case keeps the guest elsewhere, too")?;
        let (shim, left) = guest.part();
        shim.leave().await;
        Ok(left)
    }

    /// Connects to that shim again.
    pub(crate) async fn rejoin(&self, left: Left) -> Result<Rc<Guest>> {
        let (daemon, binary) = (self.daemon(), &self.subject.binary);
        let shim = Shim::connect(&daemon, binary, &left.bundle, left.answer).await?;
        let guest = Rc::new((left.back)(shim));
        self.guests.borrow_mut().push(Rc::clone(&guest));
        Ok(guest)
    }

    /// Ends a shim without containers that a case has connected to by hand.
    pub(crate) async fn end_shim(&self, shim: Shim) {
        if let Err(error) = procs::while_reaping(shim.clean_up()).await {
            // Whether `delete` succeeds then is a case of its own.
            log::debug!("{error:#}");
        }
    }

    /// One more connection to a guest's shim, beside its own.
    pub(crate) async fn second_connection(&self, guest: &Guest) -> Result<Shim> {
        let (daemon, binary) = (self.daemon(), &self.subject.binary);
        Shim::connect(&daemon, binary, guest.shim.bundle(), guest.shim.answer.clone()).await
    }
}
