//! ttrpc as it is on the socket: clients that are slow, broken, many, or gone.

mod connections;
mod frames;

use anyhow::{Context, Result};
use shim_protos::protobuf::Message;
use shim_protos::task::StateRequest;
use shim_protos::types::Status;
use ttrpc::proto::Request;

use crate::case::Case;
use crate::lab::Guest;

pub(super) fn cases() -> Vec<Case> {
    [frames::cases(), connections::cases()].concat()
}

/// A call of State.
fn state_of(guest: &Guest) -> Result<Request> {
    let state = StateRequest { id: guest.id.clone(), ..Default::default() };
    Ok(Request {
        service: guest.service().to_owned(),
        method: "State".to_owned(),
        payload: state.write_to_bytes()?,
        ..Request::default()
    })
}

/// The shim has to serve others as before.
async fn expect_service(guest: &Guest) -> Result<()> {
    guest.expect_status("", Status::RUNNING).await.context("State on another connection")
}
