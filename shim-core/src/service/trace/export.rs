//! Where spans go: OTLP over HTTP, as OpenTelemetry's standard variables say.
//!
//! The batches are sent by a thread of the SDK's; what the runtime's thread does is to put a span
//! into a bounded queue.

use std::{collections::HashMap, env, thread, time::Duration};

use opentelemetry::{Key, trace::TracerProvider};
use opentelemetry_otlp::{Protocol, RetryPolicy, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider},
};
use tokio::sync::oneshot;
use ttrpc::r#async::Service;

use super::{post::Post, span};
use crate::error::{Context, Error, Result};

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";
const TRACES_PROTOCOL: &str = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL";
const EXPORTER: &str = "OTEL_TRACES_EXPORTER";
const DISABLED: &str = "OTEL_SDK_DISABLED";
const QUEUE: &str = "OTEL_BSP_MAX_QUEUE_SIZE";
const BATCH: &str = "OTEL_BSP_MAX_EXPORT_BATCH_SIZE";

/// How many spans may wait for the next batch, and how many make one early. The queue's memory is
/// taken at once: the SDK's own 2048 places would be a megabyte in every shim.
const QUEUE_LENGTH: usize = 256;
const BATCH_LENGTH: usize = 64;

/// A shim's name where nobody gave it one; containerd does from 2.0 on.
const SERVICE: &str = "containerd-shim";

/// How long the last spans may take at the end.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

/// The spans of this process, on their way.
#[derive(Debug)]
pub(crate) struct Traces(Option<SdkTracerProvider>);

/// Makes spans of the calls of these services, if the environment says where to send them. It
/// starts a thread then.
pub(crate) fn traced(mut services: HashMap<String, Service>) -> (HashMap<String, Service>, Traces) {
    let opened = endpoint(variable).and_then(|endpoint| endpoint.map(|to| open(&to)).transpose());
    let traces = opened.unwrap_or_else(|err| {
        log::warn!("no traces: {err:#}");
        None
    });
    if let Some(provider) = &traces {
        span::trace(&mut services, &provider.tracer(env!("CARGO_PKG_NAME")));
    }
    (services, Traces(traces))
}

impl Traces {
    #[cfg(test)]
    pub(super) fn of(provider: SdkTracerProvider) -> Self {
        Self(Some(provider))
    }

    /// Sends what has not been sent, for a bounded time.
    pub(crate) async fn flushed(self) {
        let Some(provider) = self.0 else { return };
        let (tell, told) = oneshot::channel();
        // It waits for the exporter's thread, and the runtime has other things to do. The runtime's
        // own threads are no help: it panics where it can't make one.
        let flush = move || tell.send(provider.shutdown_with_timeout(FLUSH_LIMIT));
        let flushing = thread::Builder::new().spawn(flush);
        let lost = match flushing {
            Ok(_) => told.await.ok().and_then(|flushed| flushed.err()).map(|err| err.to_string()),
            Err(err) => Some(err.to_string()),
        };
        if let Some(why) = lost {
            log::debug!("the last spans are lost: {why}");
        }
    }
}

/// Where to send spans, if anywhere.
///
/// # Errors
/// For what is asked for and can't be done.
pub(super) fn endpoint(variable: impl Fn(&str) -> Option<String>) -> Result<Option<String>> {
    if variable(DISABLED).is_some_and(|value| value.eq_ignore_ascii_case("true"))
        || variable(EXPORTER).is_some_and(|value| value == "none")
    {
        return Ok(None);
    }
    // The one for traces is a whole address, the one for everything a base.
    let endpoint = variable(TRACES_ENDPOINT)
        .or_else(|| Some(format!("{}/v1/traces", variable(ENDPOINT)?.trim_end_matches('/'))));
    let Some(endpoint) = endpoint else { return Ok(None) };
    let protocol = variable(TRACES_PROTOCOL).or_else(|| variable(PROTOCOL));
    if let Some(other) = protocol.filter(|protocol| protocol != "http/protobuf") {
        return Err(Error::invalid(format!("the protocol {other} is not spoken")));
    }
    if !endpoint.starts_with("http://") {
        return Err(Error::invalid(format!("{endpoint} is not an http:// address")));
    }
    Ok(Some(endpoint))
}

/// Reads a variable; an empty one is none.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// Starts the exporter.
pub(super) fn open(endpoint: &str) -> Result<SdkTracerProvider> {
    // The SDK panics, and a shim would end, where no thread can be made: in a full cgroup.
    let tried = thread::Builder::new().spawn(|| ()).context("make a thread")?;
    tried.join().map_err(|_| Error::other("a thread died"))?;
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_http_client(Post)
        .with_endpoint(endpoint)
        .with_protocol(Protocol::HttpBinary)
        // A collector that is away for long would be called again and again; spans are no events.
        .with_retry_policy(RetryPolicy::disabled())
        .build()
        .map_err(|err| Error::invalid(err.to_string()))
        .context("make the exporter")?;
    let mut batches = BatchConfigBuilder::default();
    if variable(QUEUE).is_none() {
        batches = batches.with_max_queue_size(QUEUE_LENGTH);
    }
    if variable(BATCH).is_none() {
        batches = batches.with_max_export_batch_size(BATCH_LENGTH);
    }
    let processor =
        BatchSpanProcessor::builder(exporter).with_batch_config(batches.build()).build();
    let provider = SdkTracerProvider::builder().with_span_processor(processor);
    Ok(provider.with_resource(resource()).build())
}

/// What the variables tell of this process.
fn resource() -> Resource {
    let told = Resource::builder().build();
    let name = told.get(&Key::from_static_str("service.name"));
    match name {
        Some(name) if !name.as_str().starts_with("unknown_service") => told,
        _ => Resource::builder().with_service_name(SERVICE).build(),
    }
}
