//! `delete`: cleans up after a shim that is gone.
//!
//! containerd calls it after every task, dead shim or not, and gives it five seconds: it is cheap,
//! says nothing but its answer, and finds it no fault that nothing is left to do.

use std::fs;

use shim_protos::{
    protobuf::{Message, MessageField},
    task::DeleteResponse,
};

use super::{flags::Flags, socket::Socket};
use crate::{
    backend::Backend,
    error::{Error, Result},
    linux::{self, mount},
    model::{Bundle, ContainerId, Exit, ExitStatus, Group, Namespace, Signal},
    service::convert,
};

/// Returns the answer for stdout.
pub(super) fn delete(backend: &impl Backend, flags: &Flags) -> Result<Vec<u8>> {
    let namespace = Namespace::parse(&flags.namespace)?;
    let id = ContainerId::parse(&flags.id)?;
    let bundle = bundle(flags, &id)?;
    // First of all: containerd may remove the bundle while we are at it.
    let socket = socket(flags, &id, &bundle);
    let cleaned = backend.clean_up(&namespace, &id, &bundle);
    // A container that could not be ended holds its mounts: those that can go still should.
    let unmounted = mount::unmount_all(&bundle.rootfs());
    // A killed shim leaves its socket; a live one of the same group keeps it, but for one that has
    // been started for this container alone and never got to create it.
    let removed = socket.map_or(Ok(()), |socket| socket.release(&id));
    cleaned.and(unmounted).and(removed)?;
    answer(&bundle)
}

/// The bundle by its path, or else beside the one we stand in, where containerd keeps them all.
fn bundle(flags: &Flags, id: &ContainerId) -> Result<Bundle> {
    if let Some(path) = &flags.bundle {
        return Bundle::new(path);
    }
    let here = fs::read_link("/proc/self/cwd")?;
    let parent = here.parent().ok_or_else(|| Error::invalid("no bundle is given"))?;
    Bundle::new(parent.join(id))
}

/// The socket by what the shim wrote, or by the rule for a shim of this container alone.
fn socket(flags: &Flags, id: &ContainerId, bundle: &Bundle) -> Option<Socket> {
    let address = fs::read_to_string(bundle.path().join("address")).unwrap_or_default();
    Socket::of_address(&address).or_else(|| {
        let group = Group::alone(id);
        Socket::of_group(None, &flags.address, &flags.namespace, &group).ok()
    })
}

fn answer(bundle: &Bundle) -> Result<Vec<u8>> {
    let pid = linux::recorded(bundle).map_or(0, |(pid, _)| pid.get());
    let exit = Exit::now(ExitStatus::Signal(Signal::KILL));
    let response = DeleteResponse {
        pid,
        exit_status: exit.status.wire(),
        exited_at: MessageField::some(convert::timestamp(exit.at)),
        ..Default::default()
    };
    response.write_to_bytes().map_err(|err| Error::other(format!("encode the answer: {err}")))
}
