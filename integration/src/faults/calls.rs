//! What calls of a shim have in common: their bound, and the one request that is more than a name.

use std::time::Duration;

use anyhow::Result;
use serde_json::Value;
use shim_client::{CallError, ExecChange, exec_process};
use shim_protos::Any;
use shim_protos::protobuf::MessageField;
use shim_protos::task::ExecProcessRequest;
use tokio::time::timeout;

/// How long any call may take that nobody holds up.
pub const BOUND: Duration = Duration::from_secs(10);

/// A call or an action that did not end within its bound: what no fault excuses.
#[derive(Debug, thiserror::Error)]
#[error("{0} hangs")]
pub struct Hang(pub String);

/// Waits for an answer, but not for ever.
pub(super) async fn bounded<T, E: Into<anyhow::Error>>(
    what: &str,
    call: impl Future<Output = Result<T, E>>,
) -> Result<T> {
    match timeout(BOUND, call).await {
        Ok(answer) => answer.map_err(Into::into),
        Err(_) => Err(Hang(what.to_owned()).into()),
    }
}

/// Whether a shim has answered that there is no such thing.
pub(super) fn is_not_found(error: &anyhow::Error) -> bool {
    error.downcast_ref::<CallError>().is_some_and(CallError::is_not_found)
}

/// Adds a process to the container of that spec.
pub(super) fn exec_request(
    id: &str,
    exec_id: &str,
    spec: &Value,
    args: &[&str],
) -> Result<ExecProcessRequest> {
    let args = args.iter().map(|&arg| arg.to_owned()).collect();
    let process = exec_process(spec, &ExecChange { args, ..Default::default() });
    Ok(ExecProcessRequest {
        id: id.to_owned(),
        exec_id: exec_id.to_owned(),
        spec: MessageField::some(Any {
            type_url: "types.containerd.io/opencontainers/runtime-spec/1/Process".to_owned(),
            value: serde_json::to_vec(&process)?,
            ..Default::default()
        }),
        ..Default::default()
    })
}
