//! One call: from a request's bytes to a response's.

use std::{collections::HashMap, sync::Arc, time::Duration};

use shim_protos::protobuf::Message;
use tokio::time::timeout;
use ttrpc::{
    Code,
    r#async::{Service, TtrpcContext},
    get_status,
    proto::{Request, Response, Status},
};

use super::{
    frame::{self, LARGEST},
    guests::{FAREWELL, Guest},
};

/// What can be called: services by name, methods by name.
pub(crate) type Services = Arc<HashMap<String, Service>>;

/// Answers a request; what comes back is a frame.
pub(super) async fn answer(
    services: Services,
    guest: Arc<Guest>,
    stream: u32,
    data: Vec<u8>,
) -> Vec<u8> {
    let response = match call(&services, &guest, &data).await {
        Ok(response) => response,
        Err(status) => response_of(status),
    };
    encode(stream, &response)
}

/// A client's first request, ready to be sent.
pub(crate) fn request_frame(request: &Request) -> Vec<u8> {
    frame::request(1, &request.write_to_bytes().unwrap_or_default())
}

/// Refuses a request without a look at it.
pub(super) fn refuse(stream: u32, code: Code, why: String) -> Vec<u8> {
    fail(stream, get_status(code, why))
}

/// Ends a call or a stream with an error.
pub(super) fn fail(stream: u32, status: Status) -> Vec<u8> {
    encode(stream, &response_of(status))
}

async fn call(services: &Services, guest: &Guest, data: &[u8]) -> Result<Response, Status> {
    let request = Request::parse_from_bytes(data)
        .map_err(|err| get_status(Code::INVALID_ARGUMENT, format!("decode a request: {err}")))?;
    if request.method == FAREWELL {
        guest.leave();
    }
    let service = services.get(&request.service).ok_or_else(|| unserved(&request))?;
    let method = service.methods.get(&request.method).ok_or_else(|| unserved(&request))?;
    let metadata = request.metadata.iter().fold(
        HashMap::<String, Vec<String>>::new(),
        |mut metadata, pair| {
            metadata.entry(pair.key.clone()).or_default().push(pair.value.clone());
            metadata
        },
    );
    let limit = request.timeout_nano;
    let context = TtrpcContext { metadata, timeout_nano: limit, ..TtrpcContext::default() };
    let handled = within(limit, method.handler(context, request)).await?;
    // A method's own refusals are responses; what fails here is the payload.
    handled.map_err(|err| get_status(Code::INTERNAL, err.to_string()))
}

/// Bounds a call by its client's deadline, in nanoseconds from now; zero is none.
pub(super) async fn within<T>(limit: i64, call: impl Future<Output = T>) -> Result<T, Status> {
    match u64::try_from(limit) {
        Ok(0) => Ok(call.await),
        Ok(limit) => timeout(Duration::from_nanos(limit), call).await.map_err(|_| late()),
        Err(_) => Err(late()),
    }
}

/// containerd goes by this code when it looks for what a shim can do.
fn unserved(request: &Request) -> Status {
    let (service, method) = (&request.service, &request.method);
    get_status(Code::UNIMPLEMENTED, format!("{service}/{method} is not served"))
}

fn late() -> Status {
    get_status(Code::DEADLINE_EXCEEDED, "the call's deadline has passed")
}

fn response_of(status: Status) -> Response {
    let mut response = Response::new();
    response.set_status(status);
    response
}

fn encode(stream: u32, response: &Response) -> Vec<u8> {
    let data = response.write_to_bytes().unwrap_or_default();
    if data.len() > LARGEST {
        let why = format!("an answer of {} bytes is too long", data.len());
        return refuse(stream, Code::RESOURCE_EXHAUSTED, why);
    }
    frame::response(stream, &data)
}
