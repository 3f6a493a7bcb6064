//! Which processes belong to a shim, by what they were started with.

use std::fs;

use crate::procs;

/// What a process of a shim is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// It runs the action `start`, or is about to become the serving process.
    Starting,
    /// It serves.
    Serving,
    /// It makes processes.
    Stem,
}

/// The processes that were started for the shim of a container.
#[must_use]
pub fn processes_of(id: &str) -> Vec<(i32, Role)> {
    let all = procs::all().unwrap_or_default();
    let role = |pid: i32| {
        let cmdline = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let mut words = cmdline.split(|byte| *byte == 0).filter(|word| !word.is_empty());
        words.clone().find(|word| *word == id.as_bytes())?;
        let comm = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        Some(match words.next_back() {
            _ if comm.trim() == "shim-stem" => Role::Stem,
            Some(b"start" | b"delete") => Role::Starting,
            _ => Role::Serving,
        })
    };
    let found: Vec<(i32, Role)> =
        all.into_iter().filter_map(|process| Some((process.pid, role(process.pid)?))).collect();
    let serves = |pid: i32| found.contains(&(pid, Role::Serving));
    let roles = found.iter().map(|&(pid, role)| match role {
        // A stem that was forked this moment has not given itself a name yet.
        Role::Serving if procs::parent(pid).is_ok_and(serves) => (pid, Role::Stem),
        role => (pid, role),
    });
    roles.collect()
}
