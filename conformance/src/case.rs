//! One case: a sentence of the contract, and the code that checks it.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use anyhow::Result;
use shim_client::Generation;

use crate::lab::Lab;

/// What a case does, in a lab of its own.
pub(crate) type Check = for<'a> fn(&'a Lab) -> Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

/// How much a shim may differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// containerd or its users break without it.
    Must,
    /// What good shims do; containerd copes without.
    Should,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Must => "MUST",
            Self::Should => "SHOULD",
        })
    }
}

/// A sentence of the contract that can be checked.
#[derive(Clone)]
pub struct Case {
    /// What it is about, such as `exec`.
    pub group: &'static str,
    /// Its name within the group.
    pub name: &'static str,
    /// How much a shim may differ.
    pub level: Level,
    /// The sentence.
    pub sentence: &'static str,
    /// The longest that it may take.
    pub(crate) limit: Duration,
    pub(crate) since: Generation,
    pub(crate) until: Generation,
    pub(crate) check: Check,
}

impl Case {
    pub(crate) fn new(
        group: &'static str,
        name: &'static str,
        level: Level,
        sentence: &'static str,
        check: Check,
    ) -> Self {
        /// Enough for a slow machine, short enough for a shim that hangs in every case.
        const USUAL: Duration = Duration::from_secs(30);
        let [since, .., until] = Generation::ALL;
        Self { group, name, level, sentence, limit: USUAL, since, until, check }
    }

    /// For generations from this one on.
    pub(crate) fn since(self, since: Generation) -> Self {
        Self { since, ..self }
    }

    /// For generations up to this one.
    pub(crate) fn until(self, until: Generation) -> Self {
        Self { until, ..self }
    }

    /// For what needs longer than usual, in seconds.
    pub(crate) fn within(self, seconds: u64) -> Self {
        Self { limit: Duration::from_secs(seconds), ..self }
    }

    /// Whether that generation of containerd asks for this at all.
    #[must_use]
    pub fn applies_to(&self, generation: Generation) -> bool {
        (self.since..=self.until).contains(&generation)
    }

    /// Group and name, as in `exec.start_twice_is_refused`.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}.{}", self.group, self.name)
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Case").field(&self.id()).finish()
    }
}

/// Lists a group's cases: level, function, sentence, and what is unusual about it.
///
/// ```text
/// group! { "exec":
///     Must start_twice_is_refused: "A second Start of an exec MUST be refused.";
///     Should thousand_in_a_row: "…", within(120), since(Generation::V2_0);
/// }
/// ```
macro_rules! group {
    ($group:literal: $($level:ident $name:ident: $sentence:literal $(, $how:ident($by:expr))*;)*) => {
        pub(super) fn cases() -> Vec<crate::case::Case> {
            use crate::case::{Case, Level};
            vec![$(
                Case::new($group, stringify!($name), Level::$level, $sentence, |lab| {
                    Box::pin($name(lab))
                })$(.$how($by))*
            ),*]
        }
    };
}
pub(crate) use group;
