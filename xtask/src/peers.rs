//! The shims and runtimes that ours is measured and judged beside.

use std::{collections::HashMap, path::Path};

use anyhow::{Context, Result};

use crate::sh;

/// Where they are, by the names that `integration`'s `peers` gives them.
pub(crate) struct Peers(HashMap<String, String>);

impl Peers {
    /// Fetches and builds those that are not there yet.
    pub(crate) fn fetch() -> Result<Self> {
        Self::printed(&[])
    }

    /// The runtimes alone, with older and newer ones.
    pub(crate) fn fetch_runtimes() -> Result<Self> {
        Self::printed(&["runtimes"])
    }

    fn printed(arguments: &[&str]) -> Result<Self> {
        let peers = ["run", "--quiet", "--package", "integration", "--bin", "peers", "--"];
        let printed = sh::output(sh::cargo().args(peers).args(arguments))?;
        let lines = printed.lines().filter_map(|line| line.split_once(' '));
        Ok(Self(lines.map(|(name, path)| (name.to_owned(), path.to_owned())).collect()))
    }

    /// The path of one.
    pub(crate) fn path(&self, name: &str) -> Result<&Path> {
        self.0.get(name).map(Path::new).with_context(|| format!("no {name} among the peers"))
    }
}
