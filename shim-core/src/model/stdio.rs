//! Where a process's streams go, as the client names them.

use std::path::PathBuf;

use crate::error::{Error, Result};

/// One stream's destination or source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StdioUri {
    /// A named pipe, made by the client.
    Fifo(PathBuf),
    /// A file to append to.
    File(PathBuf),
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
    /// `InvalidArgument` for a relative path, `Unsupported` for a scheme that is not served.
    pub fn parse(uri: &str) -> Result<Option<Self>> {
        if uri.is_empty() {
            return Ok(None);
        }
        let (scheme, path) = uri.split_once("://").unwrap_or(("fifo", uri));
        let path = PathBuf::from(path);
        let parsed = match scheme {
            "fifo" => Self::Fifo(path),
            "file" => Self::File(path),
            _ => return Err(Error::unsupported("this stdio scheme").context(uri.to_owned())),
        };
        match &parsed {
            Self::Fifo(path) | Self::File(path) if !path.is_absolute() => {
                Err(Error::invalid(format!("stdio path {uri:?} is not absolute")))
            }
            _ => Ok(Some(parsed)),
        }
    }

    /// As the client wrote it, for State and the events.
    pub fn wire(uri: Option<&Self>) -> String {
        match uri {
            None => String::new(),
            Some(Self::Fifo(path)) => path.display().to_string(),
            Some(Self::File(path)) => format!("file://{}", path.display()),
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
        Ok(Self {
            stdin: parse("stdin", stdin)?,
            stdout: parse("stdout", stdout)?,
            stderr: parse("stderr", stderr)?,
            terminal,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn uris_are_fifos_files_or_refused() {
        let fifo = Some(StdioUri::Fifo("/run/f".into()));
        assert_eq!(StdioUri::parse("/run/f").unwrap(), fifo);
        assert_eq!(StdioUri::parse("fifo:///run/f").unwrap(), fifo);
        assert_eq!(StdioUri::parse("file:///f").unwrap(), Some(StdioUri::File("/f".into())));
        assert_eq!(StdioUri::parse("").unwrap(), None);
        assert_eq!(StdioUri::parse("gopher:///f").unwrap_err().kind(), Kind::Unsupported);
        assert_eq!(StdioUri::parse("f").unwrap_err().kind(), Kind::InvalidArgument);
    }
}
