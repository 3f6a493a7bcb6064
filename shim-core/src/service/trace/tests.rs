//! Calls over a socket pair, and the spans that come of them.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use opentelemetry::{
    Value,
    trace::{SpanKind, Status, TracerProvider},
};
use opentelemetry_sdk::{
    error::OTelSdkResult,
    trace::{SdkTracerProvider, SpanData, SpanExporter},
};
use shim_protos::protobuf::Message;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::Notify,
};
use ttrpc::{
    Code,
    r#async::{MethodHandler, Service, TtrpcContext},
    get_status,
    proto::{KeyValue, Request, Response},
};

use super::{
    super::{Server, request_frame},
    export::{self, Traces},
    span,
};

const SERVICE: &str = "containerd.task.v3.Task";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// Answers each method in its own way; a Start begins and has no end.
#[derive(Clone, Default)]
struct Double {
    begun: Arc<Notify>,
}

#[async_trait]
impl MethodHandler for Double {
    async fn handler(&self, _: TtrpcContext, request: Request) -> ttrpc::Result<Response> {
        let mut response = Response::new();
        match request.method.as_str() {
            "Start" => {
                self.begun.notify_one();
                std::future::pending().await
            }
            "State" => return Err(ttrpc::Error::Others("no message".to_owned())),
            "Kill" => response.set_status(get_status(Code::NOT_FOUND, "no such process")),
            _ => response.set_status(get_status(Code::OK, "")),
        }
        Ok(response)
    }
}

/// Keeps spans.
#[derive(Clone, Debug, Default)]
struct Told(Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Told {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().unwrap().extend(batch);
        Ok(())
    }
}

impl Told {
    fn take(&self) -> Vec<SpanData> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

fn server(provider: &SdkTracerProvider, double: &Double) -> Server {
    let methods = ["Create", "Start", "State", "Kill", "Wait"];
    let methods = methods.map(|name| (name.to_owned(), Box::new(double.clone()) as _)).into();
    let service = Service { methods, streams: HashMap::new() };
    let mut services = HashMap::from([(SERVICE.to_owned(), service)]);
    span::trace(&mut services, &provider.tracer("tests"));
    Server::new(services, crate::service::Streaming(crate::linux::stdio::Exchange::default()))
}

fn told_of(double: &Double) -> (Server, Told) {
    let told = Told::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(told.clone()).build();
    (server(&provider, double), told)
}

fn told() -> (Server, Told) {
    told_of(&Double::default())
}

fn request(method: &str, sampled: &str) -> Request {
    Request {
        service: SERVICE.to_owned(),
        method: method.to_owned(),
        metadata: vec![KeyValue {
            key: "traceparent".to_owned(),
            value: format!("00-{TRACE}-{PARENT}-{sampled}"),
            ..KeyValue::default()
        }],
        ..Request::default()
    }
}

async fn call(server: &Server, request: &Request) -> Code {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let answer = async move {
        ours.write_all(&request_frame(request)).await.unwrap();
        let mut head = [0; 10];
        ours.read_exact(&mut head).await.unwrap();
        let mut data = vec![0; u32::from_be_bytes(head[..4].try_into().unwrap()) as usize];
        ours.read_exact(&mut data).await.unwrap();
        Response::parse_from_bytes(&data).unwrap().status().code()
    };
    let (_served, code) = tokio::join!(server.serve(theirs), answer);
    code
}

fn attribute(span: &SpanData, key: &str) -> Option<String> {
    let found = span.attributes.iter().find(|attribute| attribute.key.as_str() == key)?;
    match &found.value {
        Value::String(text) => Some(text.as_str().to_owned()),
        other => panic!("{key} is {other:?}"),
    }
}

#[tokio::test]
async fn a_call_is_a_span_under_its_callers() {
    let (server, told) = told();
    assert_eq!(call(&server, &request("Create", "01")).await, Code::OK);
    let spans = told.take();
    let [span] = &spans[..] else { panic!("{spans:?}") };
    assert_eq!(span.name, "containerd.task.v3.Task/Create");
    assert_eq!(span.span_kind, SpanKind::Server);
    assert_eq!(span.span_context.trace_id().to_string(), TRACE);
    assert_eq!(span.parent_span_id.to_string(), PARENT);
    assert_eq!(span.status, Status::Unset);
    assert_eq!(attribute(span, "rpc.system").as_deref(), Some("ttrpc"));
    assert_eq!(attribute(span, "rpc.service").as_deref(), Some(SERVICE));
    assert_eq!(attribute(span, "rpc.method").as_deref(), Some("Create"));
    assert_eq!(attribute(span, "rpc.ttrpc.status_code"), None);
}

#[tokio::test]
async fn a_call_of_nobodys_trace_begins_one() {
    let (server, told) = told();
    let plain = Request { metadata: Vec::new(), ..request("Create", "01") };
    assert_eq!(call(&server, &plain).await, Code::OK);
    let spans = told.take();
    assert_eq!(spans.len(), 1);
    assert_ne!(spans[0].span_context.trace_id().to_string(), TRACE);
    assert_eq!(spans[0].parent_span_id.to_string(), "0000000000000000");
}

#[tokio::test]
async fn waits_and_what_the_caller_does_not_sample_are_no_spans() {
    let (server, told) = told();
    assert_eq!(call(&server, &request("Wait", "01")).await, Code::OK);
    assert_eq!(call(&server, &request("Create", "00")).await, Code::OK);
    assert!(told.take().is_empty());
}

#[tokio::test]
async fn a_refused_call_is_an_error() {
    let (server, told) = told();
    let late = Request { timeout_nano: 1_000_000, ..request("Start", "01") };
    let refused = [
        (request("Kill", "01"), Code::NOT_FOUND, "no such process"),
        (request("State", "01"), Code::INTERNAL, "ttrpc err: no message"),
        (late, Code::DEADLINE_EXCEEDED, "the call's deadline has passed"),
    ];
    for (request, code, why) in refused {
        assert_eq!(call(&server, &request).await, code);
        let spans = told.take();
        let [span] = &spans[..] else { panic!("{spans:?}") };
        assert_eq!(attribute(span, "rpc.ttrpc.status_code"), Some(format!("{code:?}")));
        assert_eq!(span.status, Status::error(why));
    }
}

#[tokio::test]
async fn a_call_ends_with_its_client() {
    let double = Double::default();
    let (server, told) = told_of(&double);
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    ours.write_all(&request_frame(&request("Start", "01"))).await.unwrap();
    let client = async {
        double.begun.notified().await;
        assert!(told.take().is_empty());
        drop(ours);
    };
    tokio::join!(server.serve(theirs), client);
    // A dropped task ends when the runtime comes to it.
    tokio::task::yield_now().await;
    let spans = told.take();
    let [span] = &spans[..] else { panic!("{spans:?}") };
    assert_eq!(attribute(span, "rpc.ttrpc.status_code").as_deref(), Some("CANCELLED"));
}

#[test]
fn the_variables_say_whether_and_where() {
    let check = |given: &[(&str, &str)], expect: Option<Option<&str>>| {
        let variable = |name: &str| {
            let (_, value) = given.iter().find(|(given, _)| *given == name)?;
            Some((*value).to_owned())
        };
        let found = export::endpoint(variable).ok();
        assert_eq!(found.as_ref().map(Option::as_deref), expect, "{given:?}");
    };
    let base = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://node:4318/");
    let own = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://node:9/spans");
    check(&[], Some(None));
    check(&[base], Some(Some("http://node:4318/v1/traces")));
    check(&[base, own], Some(Some("http://node:9/spans")));
    check(&[base, ("OTEL_SDK_DISABLED", "True")], Some(None));
    check(&[base, ("OTEL_SDK_DISABLED", "no")], Some(Some("http://node:4318/v1/traces")));
    check(&[base, ("OTEL_TRACES_EXPORTER", "none")], Some(None));
    check(&[own, ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")], Some(Some(own.1)));
    check(&[own, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")], None);
    check(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "https://node:4318")], None);
}

/// Reads a request, head and body, and answers it.
fn receive(stream: TcpStream) -> (String, Vec<u8>) {
    let (mut head, mut length) = (String::new(), 0);
    let mut reader = BufReader::new(stream);
    while !head.ends_with("\r\n\r\n") {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    reader.into_inner().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
    (head, body)
}

#[tokio::test]
async fn spans_reach_a_collector_before_the_end() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let collector = thread::spawn(move || receive(listener.accept().unwrap().0));
    let provider = export::open(&format!("http://{address}/v1/traces")).unwrap();
    let server = server(&provider, &Double::default());
    assert_eq!(call(&server, &request("Create", "01")).await, Code::OK);
    Traces::of(provider).flushed().await;
    let (head, body) = collector.join().unwrap();
    assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("content-type: application/x-protobuf\r\n"), "{head}");
    let id = u128::from_str_radix(TRACE, 16).unwrap().to_be_bytes();
    let has = |part: &[u8]| body.windows(part.len()).any(|found| found == part);
    assert!(has(&id) && has(b"containerd.task.v3.Task/Create") && has(b"service.name"));
}

#[tokio::test]
async fn a_collector_that_is_away_or_silent_holds_nobody_up() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let away = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (address, limit) in [(away, 500), (silent.local_addr().unwrap(), 1500)] {
        let provider = export::open(&format!("http://{address}/v1/traces")).unwrap();
        let server = server(&provider, &Double::default());
        let begun = Instant::now();
        assert_eq!(call(&server, &request("Create", "01")).await, Code::OK);
        assert!(begun.elapsed() < Duration::from_millis(500));
        Traces::of(provider).flushed().await;
        assert!(begun.elapsed() < Duration::from_millis(limit), "{address}");
    }
}
