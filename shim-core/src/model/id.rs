//! Ids as containerd allows them, so that each is safe as one path component.

use std::{fmt, sync::Arc};

use crate::error::Error;

/// An id that breaks containerd's rule.
#[derive(Debug, thiserror::Error)]
#[error(
    "{what} {id:?} must be 1 to {MAX} letters or digits, parted by single dots, dashes or underscores"
)]
pub struct InvalidId {
    what: &'static str,
    id: String,
}

/// The longest id containerd accepts (`pkg/identifiers`).
const MAX: usize = 76;

impl From<InvalidId> for Error {
    fn from(err: InvalidId) -> Self {
        Self::invalid(err.to_string())
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Parses an id by containerd's rule.
            ///
            /// # Errors
            /// [`InvalidId`], which names the id and the rule.
            pub fn parse(id: &str) -> Result<Self, InvalidId> {
                if is_valid(id) {
                    Ok(Self(id.into()))
                } else {
                    Err(InvalidId { what: $what, id: id.chars().take(2 * MAX).collect() })
                }
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<std::path::Path> for $name {
            fn as_ref(&self) -> &std::path::Path {
                std::path::Path::new(&*self.0)
            }
        }
    };
}

id!(
    /// Names a container within its namespace.
    ContainerId,
    "container id"
);
id!(
    /// Names an added process within its container.
    ExecId,
    "exec id"
);
id!(
    /// containerd's namespace: a tenant, nothing of the kernel's.
    Namespace,
    "namespace"
);

/// Runs of letters and digits, joined by single separators: so never `..`, never hidden.
fn is_valid(id: &str) -> bool {
    id.len() <= MAX
        && id
            .split(['.', '_', '-'])
            .all(|run| !run.is_empty() && run.bytes().all(|b| b.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_path_is_refused_by_containerds_rule() {
        for good in ["a", "A-1_b.c", &"x".repeat(76)] {
            assert!(ContainerId::parse(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a..b", "-a", "a-", "a/b", "a b", "é", &"x".repeat(77)] {
            assert!(ContainerId::parse(bad).is_err(), "{bad}");
        }
    }
}
