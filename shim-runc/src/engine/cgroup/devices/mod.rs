//! Which devices a container may use: rules on v1, a program on v2.

mod listed;
mod program;
mod rules;

use std::{fs::File, os::fd::AsFd, path::Path};

use oci_spec::runtime::LinuxDeviceCgroup;
use shim_core::{Context, Result};

#[cfg(test)]
pub(super) use self::rules::tests::spec;
use self::rules::{Rules, Verdict};
use super::{
    bpf,
    dir::{Dir, Fresh, Writer},
    limits::{Files, Version},
};

/// Sets a spec's whole list.
pub(super) fn set(files: &Files<'_>, list: &[LinuxDeviceCgroup], cgroup: Fresh) -> Result<()> {
    let rules = Rules::of(list)?;
    let named = || format!("set the devices of {}", files.path());
    match files.version() {
        Version::V1 => set_v1(files, files.dir().with_context(named)?, &rules, cgroup),
        Version::V2 => {
            files.directory().and_then(|path| set_v2(path, &rules, cgroup)).with_context(named)
        }
    }
}

/// A spec's list in systemd's words, if it has any for it: the name and the access of each device.
pub(super) fn listed(list: &[LinuxDeviceCgroup]) -> Result<Option<Vec<(String, String)>>> {
    Ok(listed::listed(&Rules::of(list)?))
}

fn set_v1(files: &Files<'_>, dir: &Dir, rules: &Rules, cgroup: Fresh) -> Result<()> {
    let current = match cgroup {
        Fresh::Made => None,
        Fresh::Found => files.read("devices.list")?.as_deref().and_then(Rules::of_list),
    };
    // One rule a write, but many rules a file: it stays open.
    let mut open: Option<(&str, Writer)> = None;
    for (verdict, line) in rules.lines_from(current.as_ref()) {
        let file = match verdict {
            Verdict::Allow => "devices.allow",
            Verdict::Deny => "devices.deny",
        };
        let mut write = || {
            let writer = match &mut open {
                Some((name, writer)) if *name == file => &*writer,
                slot => &slot.insert((file, dir.open_to_write(file)?)).1,
            };
            writer.write(&line)
        };
        write().map_err(|err| files.refused(file, &line, err))?;
    }
    Ok(())
}

fn set_v2(path: &Path, rules: &Rules, cgroup: Fresh) -> Result<()> {
    // bpf(2) takes no O_PATH descriptor.
    let dir = File::open(path)?;
    let attached = match cgroup {
        Fresh::Made if *rules == Rules::all(Verdict::Allow) => return Ok(()),
        Fresh::Made => Vec::new(),
        Fresh::Found => bpf::attached(dir.as_fd()).context("list the programs there")?,
    };
    let program = bpf::load(&program::emit(rules)).context("load it")?;
    let replaced = match &attached[..] {
        // At once: there is no moment without rules.
        [only] => Some(only.as_fd()),
        _ => None,
    };
    bpf::attach(dir.as_fd(), program.as_fd(), replaced).context("attach it")?;
    if replaced.is_none() {
        // All programs have to agree, so the new one already counts while the old ones go.
        for old in &attached {
            bpf::detach(dir.as_fd(), old.as_fd()).context("detach an older one")?;
        }
    }
    Ok(())
}
