//! `delete`: what is left of a container is cleaned up, whatever became of its shim.

mod dead;
mod harmless;

use std::fs;

use anyhow::Result;
use shim_protos::task::DeleteResponse;

use crate::case::Case;
use crate::lab::{Guest, Lab};

pub(super) fn cases() -> Vec<Case> {
    [dead::cases(), harmless::cases()].concat()
}

/// `delete` for a guest whose shim is dead. What becomes of the socket is a case of its own.
async fn clean_up(lab: &Lab, guest: &Guest) -> Result<DeleteResponse> {
    let told = lab.clean_up(guest.shim.bundle()).await;
    forget_socket(guest);
    told
}

fn forget_socket(guest: &Guest) {
    let address = &guest.shim.answer.address;
    // A shim that cleans up well has left none.
    let _ = fs::remove_file(address.strip_prefix("unix://").unwrap_or(address));
}
