//! The containerd versions that a shim has to live with, and how they differ for a test.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::debs::{Deb, Store, Suite};

/// A containerd version, as packaged by one of Debian's suites.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Engine {
    /// containerd 1.6: plain address from `start`, Task v2.
    V16,
    /// containerd 1.7: JSON from `start`, Task v2.
    V17,
    /// containerd 2.x: Task v3, the Sandbox API, config version 3.
    V2,
}

impl Engine {
    /// Every engine, oldest first.
    pub const ALL: [Self; 3] = [Self::V16, Self::V17, Self::V2];

    /// The name that tests carry in front: `engine16::…`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::V16 => "engine16",
            Self::V17 => "engine17",
            Self::V2 => "engine2",
        }
    }

    /// The package that brings this engine.
    #[must_use]
    pub const fn deb(self) -> Deb {
        let suite = match self {
            Self::V16 => Suite::Bookworm,
            Self::V17 => Suite::Trixie,
            Self::V2 => Suite::Forky,
        };
        Deb { suite, package: "containerd" }
    }

    /// The folder of `containerd`, `ctr` and containerd's own shim.
    ///
    /// # Errors
    /// When the package has not been fetched.
    pub fn bin_dir(self, store: &Store) -> Result<PathBuf> {
        Ok(store.unpacked(self.deb())?.join("usr/bin"))
    }

    /// The daemon's configuration: everything below `dir`, and only what containers need.
    #[must_use]
    pub fn config(self, dir: &Path) -> String {
        self.config_with(dir, &[])
    }

    /// The same with some of the plugins that are left out otherwise. Their tables may follow.
    #[must_use]
    pub fn config_with(self, dir: &Path, plugins: &[&str]) -> String {
        let dir = dir.display();
        let (version, disabled) = match self {
            Self::V16 | Self::V17 => (2, DISABLED_1.iter().chain(&[])),
            Self::V2 => (3, DISABLED_1.iter().chain(DISABLED_2)),
        };
        let disabled = disabled.filter(|id| !plugins.contains(id));
        let disabled: Vec<_> = disabled.map(|id| format!("{id:?}")).collect();
        format!(
            "version = {version}\n\
             root = \"{dir}/root\"\n\
             state = \"{dir}/state\"\n\
             disabled_plugins = [{}]\n\
             [grpc]\n\
             address = \"{dir}/c.sock\"\n\
             [ttrpc]\n\
             address = \"{dir}/c.sock.ttrpc\"\n",
            disabled.join(", ")
        )
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Slow to load, or they touch the machine: `opt` would make `/opt/containerd`.
const DISABLED_1: &[&str] = &[
    "io.containerd.grpc.v1.cri",
    "io.containerd.internal.v1.opt",
    "io.containerd.internal.v1.tracing",
    "io.containerd.nri.v1.nri",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.blockfile",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.native",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.tracing.processor.v1.otlp",
];

/// What 2.x split off or added.
const DISABLED_2: &[&str] = &[
    "io.containerd.cri.v1.images",
    "io.containerd.cri.v1.runtime",
    "io.containerd.differ.v1.erofs",
    "io.containerd.podsandbox.controller.v1.podsandbox",
    "io.containerd.snapshotter.v1.erofs",
];
