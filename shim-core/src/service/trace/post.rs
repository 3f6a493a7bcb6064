//! The HTTP that an exporter needs: one POST a connection, without TLS.
//!
//! A general client would bring dozens of crates. A collector stands on the node or behind an agent
//! there, and who needs TLS has that agent speak it.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    time::Duration,
};

use async_trait::async_trait;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};

/// How long a collector may take for each step of an exchange.
const LIMIT: Duration = Duration::from_secs(3);

/// How much of an answer is read.
const ANSWER_LIMIT: u64 = 64 << 10;

/// Posts requests.
#[derive(Debug)]
pub(super) struct Post;

#[async_trait]
impl HttpClient for Post {
    /// Waits on sockets: whoever calls this has a thread to spare, as the exporter has.
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let status = post(&request)
            .inspect_err(|err| log::debug!("send spans to {}: {err}", request.uri()))?;
        if !(200..300).contains(&status) {
            log::debug!("send spans to {}: status {status}", request.uri());
        }
        Ok(Response::builder().status(status).body(Bytes::new())?)
    }
}

/// Returns the answer's status; nothing else in it matters.
fn post(request: &Request<Bytes>) -> io::Result<u16> {
    let uri = request.uri();
    let host = uri.host().ok_or(io::ErrorKind::InvalidInput)?;
    let port = uri.port_u16().unwrap_or(80);
    let mut stream = connect(host.trim_matches(['[', ']']), port)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut message = Vec::with_capacity(512 + request.body().len());
    write!(message, "POST {path} HTTP/1.1\r\nhost: {host}:{port}\r\nconnection: close\r\n")?;
    write!(message, "content-length: {}\r\n", request.body().len())?;
    for (name, value) in request.headers() {
        write!(message, "{name}: ")?;
        message.extend_from_slice(value.as_bytes());
        message.extend_from_slice(b"\r\n");
    }
    message.extend_from_slice(b"\r\n");
    message.extend_from_slice(request.body());
    stream.write_all(&message)?;
    let mut answer = BufReader::new(stream.take(ANSWER_LIMIT));
    let mut line = String::new();
    answer.read_line(&mut line)?;
    let status = status(&line).ok_or(io::ErrorKind::InvalidData)?;
    // To close with bytes unread would reset the connection under the collector's hands.
    let _unread = io::copy(&mut answer, &mut io::sink());
    Ok(status)
}

fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::ErrorKind::AddrNotAvailable.into();
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, LIMIT) {
            Ok(stream) => return Ok(stream),
            Err(err) => last = err,
        }
    }
    Err(last)
}

/// The status of an answer's first line.
fn status(line: &str) -> Option<u16> {
    line.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.trim_end().parse().ok()
}
