//! One call as a span: its name, its parent, and how it ended.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use opentelemetry::{
    Context, KeyValue,
    propagation::{Extractor, TextMapPropagator},
    trace::{Span as _, SpanKind, Status, Tracer},
};
use opentelemetry_sdk::{
    propagation::TraceContextPropagator,
    trace::{SdkTracer, Span},
};
use ttrpc::{
    Code,
    r#async::{MethodHandler, Service, TtrpcContext},
    proto::{Request, Response},
};

/// The method without a span. A span is told when it ends: that of a Wait would come hours after
/// the rest of its trace, be held in memory until then, and say no more than the exit's event.
const UNTRACED: &str = "Wait";

/// What the runtime's timer counts in: a deadline may seem so far away when it passes.
const TICK: Duration = Duration::from_millis(1);

type Method = Box<dyn MethodHandler + Send + Sync>;

/// A method whose calls are spans.
struct Traced {
    method: Method,
    tracer: SdkTracer,
    name: String,
    attributes: Vec<KeyValue>,
}

/// Makes spans of all calls of these services.
pub(super) fn trace(services: &mut HashMap<String, Service>, tracer: &SdkTracer) {
    for (name, service) in services {
        let name: Arc<str> = name.as_str().into();
        let methods = std::mem::take(&mut service.methods).into_iter();
        service.methods = methods
            .map(|(method_name, method)| {
                if method_name == UNTRACED {
                    return (method_name, method);
                }
                let traced = Traced::new(&name, &method_name, method, tracer.clone());
                (method_name, Box::new(traced) as Method)
            })
            .collect();
    }
}

impl Traced {
    fn new(service: &Arc<str>, name: &str, method: Method, tracer: SdkTracer) -> Self {
        let attributes = vec![
            KeyValue::new("rpc.system", "ttrpc"),
            KeyValue::new("rpc.service", Arc::clone(service)),
            KeyValue::new("rpc.method", Arc::<str>::from(name)),
        ];
        Self { method, tracer, name: format!("{service}/{name}"), attributes }
    }

    fn begin(&self, context: &TtrpcContext) -> Call {
        let parent = TraceContextPropagator::new()
            .extract_with_context(&Context::new(), &Metadata(&context.metadata));
        let span = self
            .tracer
            .span_builder(self.name.clone())
            .with_kind(SpanKind::Server)
            .with_attributes(self.attributes.clone())
            .start_with_context(&self.tracer, &parent);
        let limit = u64::try_from(context.timeout_nano).ok().filter(|limit| *limit > 0);
        let deadline =
            limit.and_then(|limit| Instant::now().checked_add(Duration::from_nanos(limit)));
        Call { span, deadline, outcome: None }
    }
}

#[async_trait]
impl MethodHandler for Traced {
    async fn handler(&self, context: TtrpcContext, request: Request) -> ttrpc::Result<Response> {
        let mut call = self.begin(&context);
        let answered = self.method.handler(context, request).await;
        call.outcome = Some(match &answered {
            Ok(response) => match response.status.as_ref() {
                Some(status) if status.code() != Code::OK => {
                    Outcome::Refused(status.code(), status.message.clone())
                }
                _ => Outcome::Done,
            },
            // So the server answers then.
            Err(err) => Outcome::Refused(Code::INTERNAL, err.to_string()),
        });
        answered
    }
}

/// A call under way. Its span ends with it, also when nobody waits for the answer any more.
struct Call {
    span: Span,
    deadline: Option<Instant>,
    outcome: Option<Outcome>,
}

enum Outcome {
    Done,
    Refused(Code, String),
}

impl Drop for Call {
    fn drop(&mut self) {
        let (code, why) = match self.outcome.take() {
            Some(Outcome::Done) => return,
            Some(Outcome::Refused(code, why)) => (code, why),
            None if self.deadline.is_some_and(|deadline| Instant::now() + TICK >= deadline) => {
                (Code::DEADLINE_EXCEEDED, "the call's deadline has passed".to_owned())
            }
            None => (Code::CANCELLED, "the client is gone".to_owned()),
        };
        self.span.set_attribute(KeyValue::new("rpc.ttrpc.status_code", format!("{code:?}")));
        self.span.set_status(Status::error(why));
    }
}

/// A request's metadata, as the propagator reads it.
struct Metadata<'a>(&'a HashMap<String, Vec<String>>);

impl Extractor for Metadata<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.first().map(String::as_str)
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }
}
