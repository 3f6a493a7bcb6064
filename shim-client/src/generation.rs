//! The dialects in which containerd has started shims over the years.
//!
//! A shim must understand all of them: it can outlive the daemon that started it, and meets older
//! and newer ones. What differs is the environment, stdin, and which answers are understood.

use std::fmt;
use std::str::FromStr;

use anyhow::bail;

/// A range of containerd releases that start shims in the same way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Generation {
    /// 1.6: bare options on stdin, a plain address as the answer.
    V1_6,
    /// 1.7: more environment; the answer may be JSON, for version 2 of the task service.
    V1_7,
    /// 2.0 and 2.1: JSON may announce version 3; calls carry the namespace.
    V2_0,
    /// 2.2: asks a shim what it can do before it starts it.
    V2_2,
    /// 2.3 and later: `BootstrapParams` on stdin, `BootstrapResult` as the answer.
    #[default]
    V2_3,
}

impl Generation {
    /// Every generation, oldest first.
    pub const ALL: [Self; 5] = [Self::V1_6, Self::V1_7, Self::V2_0, Self::V2_2, Self::V2_3];

    /// The newest version of the task service that this generation can call.
    pub fn newest_service(self) -> u32 {
        if self < Self::V2_0 { 2 } else { 3 }
    }

    /// Whether a shim is told the namespace by the environment, and with it which version of the
    /// task service to expect.
    pub(crate) fn names_itself_in_the_environment(self) -> bool {
        self >= Self::V1_7
    }

    /// Whether calls carry the namespace as metadata.
    pub(crate) fn sends_namespace(self) -> bool {
        self >= Self::V2_0
    }

    /// The folder of the bundles of sandboxes, where those are apart from the tasks'.
    pub fn sandboxes(self) -> Option<&'static str> {
        (self >= Self::V2_0).then_some("io.containerd.sandbox.controller.v1.shim")
    }

    /// Whether a debugging daemon passes `-debug` to `delete` too.
    pub(crate) fn debugs_delete(self) -> bool {
        self >= Self::V1_7
    }

    /// Whether the daemon keeps the answer to `start` in the bundle, for after its restart.
    pub(crate) fn keeps_answer(self) -> bool {
        self >= Self::V2_0
    }

    /// The version that this generation would call itself.
    pub(crate) fn version(self) -> &'static str {
        match self {
            Self::V1_6 => "v1.6.0",
            Self::V1_7 => "v1.7.0",
            Self::V2_0 => "v2.0.0",
            Self::V2_2 => "v2.2.0",
            Self::V2_3 => "v2.3.0",
        }
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1_6 => "1.6",
            Self::V1_7 => "1.7",
            Self::V2_0 => "2.0",
            Self::V2_2 => "2.2",
            Self::V2_3 => "2.3",
        })
    }
}

impl FromStr for Generation {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        for generation in Self::ALL {
            if generation.to_string() == text {
                return Ok(generation);
            }
        }
        bail!("no containerd generation {text:?}: choose 1.6, 1.7, 2.0 (also 2.1), 2.2 or 2.3");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for generation in Generation::ALL {
            assert_eq!(generation.to_string().parse::<Generation>().unwrap(), generation);
        }
        assert!("3.0".parse::<Generation>().is_err());
    }

    #[test]
    fn only_containerd_2_calls_version_3() {
        assert_eq!(Generation::ALL.map(Generation::newest_service), [2, 2, 3, 3, 3]);
    }
}
