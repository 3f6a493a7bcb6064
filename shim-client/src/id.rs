//! Names of containers, execs and namespaces, by containerd's rule.

use std::fs::File;
use std::io::Read;

use anyhow::{Context, Result, bail};

/// containerd's limit for an identifier.
const MAX_LENGTH: usize = 76;

/// Refuses what containerd would refuse as an identifier.
///
/// The rule is runs of ASCII letters and digits, joined by single `.`, `_` or `-`. It keeps a
/// name safe as one component of a path.
pub fn check_id(what: &str, id: &str) -> Result<()> {
    let runs = id.split(['.', '_', '-']);
    let well_formed =
        runs.clone().all(|run| !run.is_empty() && run.bytes().all(|b| b.is_ascii_alphanumeric()));
    if !well_formed {
        bail!("{what} {id:?}: letters and digits, joined by single dots, dashes or underscores");
    }
    if id.len() > MAX_LENGTH {
        bail!("{what} {id:?}: {} characters, containerd allows {MAX_LENGTH}", id.len());
    }
    Ok(())
}

/// A fresh name of twelve hex digits.
pub fn random_id() -> Result<String> {
    let mut bytes = [0; 6];
    File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .context("read /dev/urandom")?;
    Ok(hex::encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_follow_containerd() {
        for good in ["a", "0", "a-b", "a.b_c-d", "A9"] {
            assert!(check_id("container", good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "a..b", "a/b", "..", "a b", "ä", &"x".repeat(77)] {
            assert!(check_id("container", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn random_ids_are_good_ids() {
        let id = random_id().unwrap();
        assert_eq!(id.len(), 12);
        check_id("container", &id).unwrap();
        assert_ne!(id, random_id().unwrap());
    }
}
