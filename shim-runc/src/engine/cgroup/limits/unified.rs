//! Files of v2 set by name, as the spec's `unified` map has them.

use std::collections::HashMap;

use nix::errno::Errno;
use shim_core::{Error, Result};

use super::{Cgroup, Files};
use crate::engine::cgroup::Mode;

/// Writes each value to the file of its name.
pub(super) fn set(cgroup: &Cgroup, values: &HashMap<String, String>) -> Result<()> {
    if cgroup.hierarchies.mode != Mode::V2 {
        return Err(Error::invalid("unified: this host has its controllers on cgroup v1"));
    }
    let files = Files::of(cgroup, "", "");
    let mut names: Vec<_> = values.keys().collect();
    // Maps have no order, but messages and tests like one.
    names.sort();
    for name in names {
        let Some((controller, _)) = name.split_once('.').filter(|_| !name.contains('/')) else {
            return Err(Error::invalid(format!("unified: {name:?} is not CONTROLLER.PARAMETER")));
        };
        // A file such as io.max takes one line at a time.
        for line in values[name].lines() {
            let taken = files.set_unless(&[Errno::ENOENT, Errno::EACCES], name, line)?;
            if !taken {
                return Err(absent(&files, name, controller));
            }
        }
    }
    Ok(())
}

fn absent(files: &Files<'_>, name: &str, controller: &str) -> Error {
    let list = files.read("cgroup.controllers").ok().flatten().unwrap_or_default();
    let why = if controller == "cgroup" || list.split_whitespace().any(|known| known == controller)
    {
        "the kernel has no such file".to_owned()
    } else {
        format!("cgroup controller {controller} is not enabled there")
    };
    Error::other(format!("set {name} of {}: {why}", files.path()))
}
