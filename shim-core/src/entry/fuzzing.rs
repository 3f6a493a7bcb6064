//! What hostile bytes reach before there is a server: the command line, and stdin of `start`.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
};

use super::{
    bootstrap::{Bootstrap, Environment},
    flags::Flags,
};

/// Parses these bytes as a command line, an argument a line.
pub fn flags(bytes: &[u8]) {
    let words = bytes.split(|byte| *byte == b'\n').map(|word| OsStr::from_bytes(word).to_owned());
    let arguments: Vec<OsString> = std::iter::once("shim".into()).chain(words).collect();
    let _parsed = Flags::parse(&arguments);
}

/// Parses these bytes as stdin of `start`, and answers in the dialect that they ask for.
pub fn bootstrap(bytes: &[u8]) {
    let flags = Flags { id: "t1".into(), namespace: "default".into(), ..Flags::default() };
    for version in [None, Some("2".to_owned())] {
        let env = Environment { max_shim_version: version, ..Environment::default() };
        let bootstrap = Bootstrap::parse(bytes, &flags, env);
        let answer = bootstrap.dialect.answer("unix:///run/s");
        assert!(answer.is_ok_and(|answer| !answer.is_empty()), "every dialect has an answer");
    }
}
