//! Finds the Debian mirror that the machine itself uses.
//!
//! A mirror near by, or the only one that a network lets through, is in apt's own sources, in one
//! of two formats: lines (`*.list`) and paragraphs (`*.sources`).

use std::fs;
use std::path::Path;

/// A Debian archive: where, and whose signature to expect.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Archive {
    uri: String,
    keyring: String,
}

impl Archive {
    /// The line of a sources.list that brings a suite's packages and nothing else.
    pub(super) fn line(&self, suite: &str) -> String {
        let Self { uri, keyring } = self;
        format!("deb [signed-by={keyring} target=Packages] {uri} {suite} main\n")
    }

    fn new(uri: &str, keyring: Option<&str>) -> Option<Self> {
        // Security and other vendors' archives lie below other names.
        let debian = uri.trim_end_matches('/').ends_with("/debian");
        let keyring = keyring.unwrap_or("/usr/share/keyrings/debian-archive-keyring.gpg");
        debian.then(|| Self { uri: uri.to_owned(), keyring: keyring.to_owned() })
    }
}

/// The first Debian archive in the machine's sources, else the public one.
pub(super) fn machine_archive() -> Archive {
    let apt = Path::new("/etc/apt");
    let mut files = vec![apt.join("sources.list")];
    if let Ok(entries) = fs::read_dir(apt.join("sources.list.d")) {
        files.extend(entries.flatten().map(|entry| entry.path()));
    }
    files.sort();
    let public = || Archive::new("http://deb.debian.org/debian", None);
    let found = files.iter().find_map(|file| {
        let text = fs::read_to_string(file).ok()?;
        if file.extension().is_some_and(|e| e == "sources") {
            paragraphs(&text)
        } else {
            lines(&text)
        }
    });
    found.or_else(public).expect("the public archive's name is one")
}

/// `deb [options] URI SUITE COMPONENT…`
fn lines(text: &str) -> Option<Archive> {
    text.lines().find_map(|line| {
        let rest = line.trim().strip_prefix("deb ")?.trim_start();
        let (options, rest) = match rest.strip_prefix('[') {
            Some(rest) => rest.split_once(']')?,
            None => ("", rest),
        };
        let keyring = options.split_whitespace().find_map(|o| o.strip_prefix("signed-by="));
        Archive::new(rest.split_whitespace().next()?, keyring)
    })
}

/// `Key: value` lines; an empty line ends a paragraph.
fn paragraphs(text: &str) -> Option<Archive> {
    text.split("\n\n").find_map(|paragraph| {
        let value = |key: &str| {
            paragraph.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case(key).then(|| value.trim())
            })
        };
        if !value("Types")?.split_whitespace().any(|t| t == "deb") {
            return None;
        }
        // A key may also be inlined, which a line of sources.list cannot carry.
        let keyring = value("Signed-By").filter(|path| path.starts_with('/'));
        value("URIs")?.split_whitespace().find_map(|uri| Archive::new(uri, keyring))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(found: Option<Archive>, expect: Option<(&str, &str)>) {
        let expect = expect.map(|(uri, key)| Archive { uri: uri.into(), keyring: key.into() });
        assert_eq!(found, expect);
    }

    #[test]
    fn a_line_with_options_names_its_keyring() {
        let text = "# deb http://a/debian x main\ndeb-src http://b/debian x main\n\
                    deb [arch=amd64 signed-by=/k.gpg] http://c/debian/ x main\n";
        check(lines(text), Some(("http://c/debian/", "/k.gpg")));
    }

    #[test]
    fn other_vendors_and_security_are_passed_over() {
        let text = "deb http://a/debian-security x main\ndeb http://b/ubuntu x main\n";
        check(lines(text), None);
    }

    #[test]
    fn a_paragraph_gives_the_first_debian_uri() {
        let text = "Types: deb\nURIs: http://a/debian-security\nSigned-By: /s.gpg\n\n\
                    Types: deb deb-src\nURIs: http://a/debian\nSigned-By: /k.gpg\n";
        check(paragraphs(text), Some(("http://a/debian", "/k.gpg")));
    }
}
