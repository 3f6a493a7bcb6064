//! Where a process's streams go, as the client names them.

use std::{
    ffi::OsString,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

use crate::error::{Error, Kind, Result};

/// One stream's destination or source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StdioUri {
    /// As the client wrote it, for State and the events.
    text: Box<str>,
    place: StdioPlace,
}

/// What a URI stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StdioPlace {
    /// A named pipe, made by the client; a bare path may be a plain file too.
    Fifo(PathBuf),
    /// A file to append to.
    File(PathBuf),
    /// A program that takes the output.
    Binary(LogBinary),
    /// A stream that a client opens at the shim's own socket.
    Stream(SocketStream),
}

/// A stream of the streaming service: `ttrpc+unix://<socket>?streaming_id=<id>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketStream {
    /// Where clients open it.
    pub socket: PathBuf,
    /// By what they ask for it.
    pub id: Box<str>,
}

/// A logging binary: a program that gets a process's output on descriptors of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogBinary {
    /// The program.
    pub path: PathBuf,
    /// Its arguments after its name.
    pub arguments: Vec<OsString>,
    /// What its silence means.
    pub protocol: LogProtocol,
}

/// How a logging binary says that it is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogProtocol {
    /// It writes a byte, or closes the descriptor: `binary://`.
    ByteOrClose,
    /// It writes a byte; one that closes the descriptor without has failed: `binary-v2://`.
    Byte,
}

/// The three streams of a process, and whether a terminal stands behind them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StdioUris {
    /// What the process reads.
    pub stdin: Option<StdioUri>,
    /// What it prints.
    pub stdout: Option<StdioUri>,
    /// What it complains about. Unused with a terminal.
    pub stderr: Option<StdioUri>,
    /// Whether the process gets a terminal.
    pub terminal: bool,
}

impl StdioUri {
    /// Parses a URI or a bare path; an empty one is no stream.
    ///
    /// # Errors
    /// `InvalidArgument` for a relative path, a scheme that nobody knows, an escape that makes no
    /// sense or a stream without an id, `Unsupported` for a stream over anything but ttrpc on a unix
    /// socket.
    pub fn parse(uri: &str) -> Result<Option<Self>> {
        if uri.is_empty() {
            return Ok(None);
        }
        let place = match uri.split_once("://") {
            // A bare path is no URI: nothing in it is escaped.
            None => StdioPlace::Fifo(absolute(PathBuf::from(uri), uri)?),
            Some((scheme, rest)) => StdioPlace::parse(scheme, rest, uri)?,
        };
        Ok(Some(Self { text: uri.into(), place }))
    }

    /// What it stands for.
    pub fn place(&self) -> &StdioPlace {
        &self.place
    }

    /// As the client wrote it, for State and the events.
    pub fn wire(uri: Option<&Self>) -> String {
        uri.map(|uri| uri.text.to_string()).unwrap_or_default()
    }
}

impl StdioPlace {
    fn parse(scheme: &str, rest: &str, uri: &str) -> Result<Self> {
        let rest = rest.split_once('#').map_or(rest, |(rest, _fragment)| rest);
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = || absolute(PathBuf::from(unescape(path, Plus::IsPlus)?), uri);
        let binary = |protocol| -> Result<Self> {
            Ok(Self::Binary(LogBinary { path: path()?, arguments: arguments(query)?, protocol }))
        };
        match scheme {
            "fifo" => Ok(Self::Fifo(path()?)),
            "file" => Ok(Self::File(path()?)),
            "binary" => binary(LogProtocol::ByteOrClose),
            "binary-v2" => binary(LogProtocol::Byte),
            "ttrpc+unix" => {
                Ok(Self::Stream(SocketStream { socket: path()?, id: streaming_id(query, uri)? }))
            }
            // Streams that a sandbox serves to CRI elsewhere.
            _ if scheme.starts_with("ttrpc+") || scheme.starts_with("grpc+") => {
                Err(Error::new(Kind::Unsupported, format!("streams over {scheme} are not served")))
            }
            _ => Err(Error::invalid(format!("unknown stdio scheme {scheme:?} in {uri:?}"))),
        }
    }
}

impl StdioUris {
    /// Parses what a create or exec request holds.
    ///
    /// # Errors
    /// As [`StdioUri::parse`], with the stream's name.
    pub fn parse(stdin: &str, stdout: &str, stderr: &str, terminal: bool) -> Result<Self> {
        let parse = |name: &'static str, uri| StdioUri::parse(uri).map_err(|err| err.context(name));
        let stdin = parse("stdin", stdin)?;
        if stdin.as_ref().is_some_and(|uri| matches!(uri.place, StdioPlace::Binary(_))) {
            return Err(Error::invalid("stdin: a logging binary takes output only"));
        }
        Ok(Self {
            stdin,
            stdout: parse("stdout", stdout)?,
            stderr: parse("stderr", stderr)?,
            terminal,
        })
    }
}

fn absolute(path: PathBuf, uri: &str) -> Result<PathBuf> {
    if Path::is_absolute(&path) {
        return Ok(path);
    }
    Err(Error::invalid(format!("stdio path {uri:?} is not absolute")))
}

/// The query of a logging binary: each key and each value that isn't empty is an argument.
fn arguments(query: &str) -> Result<Vec<OsString>> {
    let mut arguments = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        arguments.push(unescape(key, Plus::IsSpace)?);
        if !value.is_empty() {
            arguments.push(unescape(value, Plus::IsSpace)?);
        }
    }
    Ok(arguments)
}

/// The id in a stream's query.
fn streaming_id(query: &str, uri: &str) -> Result<Box<str>> {
    let mut values = query.split('&').filter_map(|pair| pair.strip_prefix("streaming_id="));
    let id = unescape(values.next().unwrap_or_default(), Plus::IsSpace)?;
    match id.into_string() {
        Ok(id) if !id.is_empty() => Ok(id.into()),
        _ => Err(Error::invalid(format!("{uri:?} has no streaming_id"))),
    }
}

/// What a plus stands for: in a query it is a space.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Plus {
    IsPlus,
    IsSpace,
}

/// Takes the percent escapes out of a part of a URI.
fn unescape(text: &str, plus: Plus) -> Result<OsString> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = rest.next().zip(rest.next());
                let escaped = digits.and_then(|(high, low)| Some(hex(high)? << 4 | hex(low)?));
                // A NUL would end the name where it is used.
                escaped.filter(|byte| *byte != 0).ok_or_else(|| {
                    Error::invalid(format!("{text:?} has an escape that stands for nothing"))
                })?
            }
            b'+' if plus == Plus::IsSpace => b' ',
            0 => return Err(Error::invalid(format!("{text:?} has a NUL"))),
            byte => byte,
        });
    }
    Ok(OsString::from_vec(bytes))
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(uri: &str) -> StdioPlace {
        StdioUri::parse(uri).unwrap().unwrap().place
    }

    fn binary(uri: &str) -> LogBinary {
        let StdioPlace::Binary(binary) = place(uri) else { panic!("{uri} is a binary") };
        binary
    }

    #[test]
    fn a_path_or_a_scheme_says_where_a_stream_goes() {
        assert_eq!(place("/run/f"), StdioPlace::Fifo("/run/f".into()));
        assert_eq!(place("/run/100%25"), StdioPlace::Fifo("/run/100%25".into()));
        assert_eq!(place("fifo:///run/f"), StdioPlace::Fifo("/run/f".into()));
        assert_eq!(place("file:///a%20b+c?x#y"), StdioPlace::File("/a b+c".into()));
        assert_eq!(StdioUri::parse("").unwrap(), None);
    }

    #[test]
    fn a_logging_binary_gets_keys_and_values_in_order() {
        let log = binary("binary:///bin/log?z=1&flag=&a=x+y%2Fz&last");
        assert_eq!(log.path, Path::new("/bin/log"));
        assert_eq!(log.arguments, ["z", "1", "flag", "a", "x y/z", "last"]);
        assert_eq!(log.protocol, LogProtocol::ByteOrClose);
        assert_eq!(binary("binary-v2:///l").protocol, LogProtocol::Byte);
        assert!(binary("binary-v2:///l?").arguments.is_empty());
    }

    #[test]
    fn a_stream_has_a_socket_and_an_id() {
        let stream = |id: &str| SocketStream { socket: "/run/s".into(), id: id.into() };
        let uri = "ttrpc+unix:///run/s?streaming_id=c1-stdout";
        assert_eq!(place(uri), StdioPlace::Stream(stream("c1-stdout")));
        let uri = "ttrpc+unix:///run/s?a=b&streaming_id=%C3%A4";
        assert_eq!(place(uri), StdioPlace::Stream(stream("ä")));
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        let refused = |uri: &str, kind: Kind, word: &str| {
            let err = StdioUris::parse("", uri, "", false).unwrap_err();
            assert_eq!(err.kind(), kind, "{uri}");
            let text = format!("{err:#}");
            assert!(text.starts_with("stdout: ") && text.contains(word), "{text}");
        };
        refused("gopher:///f", Kind::InvalidArgument, "gopher");
        refused("f", Kind::InvalidArgument, "absolute");
        refused("file://host/f", Kind::InvalidArgument, "absolute");
        refused("file:///a%2", Kind::InvalidArgument, "escape");
        refused("file:///a%zz", Kind::InvalidArgument, "escape");
        refused("file:///a%00b", Kind::InvalidArgument, "escape");
        refused("binary:///b?a=%+1", Kind::InvalidArgument, "escape");
        refused("ttrpc+unix:///s", Kind::InvalidArgument, "streaming_id");
        refused("ttrpc+unix:///s?streaming_id=&a=b", Kind::InvalidArgument, "streaming_id");
        refused("ttrpc+unix://s?streaming_id=i", Kind::InvalidArgument, "absolute");
        refused("ttrpc+vsock://3:4?streaming_id=i", Kind::Unsupported, "ttrpc+vsock");
        refused("grpc+vsock://3:4?streaming_id=i", Kind::Unsupported, "grpc+vsock");
        let err = StdioUris::parse("binary:///b", "", "", false).unwrap_err();
        assert_eq!(err.kind(), Kind::InvalidArgument);
    }

    #[test]
    fn the_client_reads_what_it_wrote() {
        for uri in ["", "/f", "fifo:///f", "file:///a%20b", "binary:///b?k=v"] {
            assert_eq!(StdioUri::wire(StdioUri::parse(uri).unwrap().as_ref()), uri);
        }
    }
}
