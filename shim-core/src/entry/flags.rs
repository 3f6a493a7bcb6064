//! containerd's flags, which are Go's: one dash or two, a value behind `=` or in the next argument.

use std::{ffi::OsString, path::PathBuf};

use crate::error::{Error, Result};

/// What a shim process is asked to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Action {
    /// Nothing: a command line without an action.
    #[default]
    None,
    /// Start a serving process and tell its address.
    Start,
    /// Clean up after a dead one.
    Delete,
    /// Tell the version, for people.
    Version,
    /// Tell the version and the features, for containerd.
    About,
}

/// The parsed command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Flags {
    pub(super) action: Action,
    pub(super) namespace: String,
    pub(super) id: String,
    /// containerd's GRPC socket.
    pub(super) address: String,
    pub(super) publish_binary: String,
    pub(super) bundle: Option<PathBuf>,
    pub(super) debug: bool,
}

impl Flags {
    /// Parses the arguments, the program's name first.
    ///
    /// # Errors
    /// `InvalidArgument`, which names the argument.
    pub(super) fn parse(arguments: &[OsString]) -> Result<Self> {
        let mut flags = Self::default();
        let mut words = arguments.iter().skip(1).map(|word| text(word));
        while let Some(word) = words.next() {
            let word = word?;
            let Some(flag) = word.strip_prefix('-') else {
                // Go's flags end at the first word that is none, and so do these.
                flags.action = action(word)?;
                return Ok(flags);
            };
            let flag = flag.strip_prefix('-').unwrap_or(flag);
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (flag, None),
            };
            if !flags.switch(name, value)? {
                let value = match value {
                    Some(value) => value,
                    None => words.next().ok_or_else(|| {
                        Error::invalid(format!("flag needs an argument: -{name}"))
                    })??,
                };
                flags.set(name, value)?;
            }
        }
        Ok(flags)
    }

    /// Takes a flag without a value; returns whether it was one.
    fn switch(&mut self, name: &str, value: Option<&str>) -> Result<bool> {
        if !matches!(name, "debug" | "v" | "version" | "info") {
            return Ok(false);
        }
        let on = match value {
            None | Some("true" | "1" | "t" | "T" | "TRUE" | "True") => true,
            Some("false" | "0" | "f" | "F" | "FALSE" | "False") => false,
            Some(value) => {
                return Err(Error::invalid(format!("invalid boolean value {value:?} for -{name}")));
            }
        };
        match name {
            "debug" => self.debug = on,
            "info" if on => self.action = Action::About,
            _ if on => self.action = Action::Version,
            _ => {}
        }
        Ok(true)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<()> {
        match name {
            "namespace" => value.clone_into(&mut self.namespace),
            "id" => value.clone_into(&mut self.id),
            "address" => value.clone_into(&mut self.address),
            "publish-binary" => value.clone_into(&mut self.publish_binary),
            "bundle" => self.bundle = Some(value.into()),
            // The socket is handed over as a descriptor.
            "socket" | "debug-socket" => {}
            _ => return Err(Error::invalid(format!("flag provided but not defined: -{name}"))),
        }
        Ok(())
    }
}

fn action(word: &str) -> Result<Action> {
    match word {
        "start" => Ok(Action::Start),
        "delete" => Ok(Action::Delete),
        "" => Ok(Action::None),
        _ => Err(Error::invalid(format!("unknown action {word:?}: start or delete"))),
    }
}

fn text(word: &OsString) -> Result<&str> {
    word.to_str().ok_or_else(|| Error::invalid(format!("argument {word:?} is not UTF-8")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Flags> {
        let words: Vec<OsString> =
            std::iter::once("shim").chain(line.split_whitespace()).map(Into::into).collect();
        Flags::parse(&words)
    }

    #[test]
    fn containerds_command_lines_parse() {
        let flags =
            parse("-namespace ns -address /a -publish-binary /c -id x -debug start").unwrap();
        assert_eq!(flags.action, Action::Start);
        assert_eq!((flags.namespace.as_str(), flags.id.as_str()), ("ns", "x"));
        assert_eq!((flags.address.as_str(), flags.publish_binary.as_str()), ("/a", "/c"));
        assert!(flags.debug);
        let flags = parse("--namespace=ns -id=x -bundle /b -debug=false delete").unwrap();
        assert_eq!(flags.action, Action::Delete);
        assert_eq!(flags.bundle, Some("/b".into()));
        assert!(!flags.debug);
    }

    #[test]
    fn versions_need_nothing_else() {
        assert_eq!(parse("-v").unwrap().action, Action::Version);
        assert_eq!(parse("-info").unwrap().action, Action::About);
        assert_eq!(parse("").unwrap().action, Action::None);
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (line, named) in
            [("-frob start", "-frob"), ("-id", "-id"), ("-debug=maybe", "maybe"), ("stop", "stop")]
        {
            let err = parse(line).unwrap_err().to_string();
            assert!(err.contains(named), "{err}");
        }
    }
}
