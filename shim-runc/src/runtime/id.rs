//! The rule for ids on a runtime's command line: runc's, which is wider than containerd's.

use shim_core::{Error, Result};

/// The longest id, which has to be a file name and a part of a keyring's.
const MAX: usize = 255;

/// Checks an id, which is a file name: never hidden, never a path.
///
/// # Errors
/// `InvalidArgument` for anything else.
pub(super) fn check(id: &str) -> Result<()> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
    let is_valid =
        !id.is_empty() && id.len() <= MAX && !id.starts_with('.') && id.bytes().all(is_plain);
    if is_valid { Ok(()) } else { Err(Error::invalid(format!("invalid container id {id:?}"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_file_names() {
        for good in ["a", "-a", "_+.-", "a..b", &"x".repeat(255)] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", ".a", "a/b", "a b", "é", "a\n", &"x".repeat(256)] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
