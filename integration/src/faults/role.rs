//! Which processes belong to a shim, by what they were started with.

use std::fs;

use crate::procs;

/// What a process of a shim is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// It runs the action `start` or `delete`, or is about to become the serving process.
    Starting,
    /// It serves.
    Serving,
    /// It makes processes.
    Stem,
}

/// The processes that were started for the shim of a container.
#[must_use]
pub fn processes_of(id: &str) -> Vec<(i32, Role)> {
    let all: Vec<i32> =
        procs::all().unwrap_or_default().into_iter().map(|process| process.pid).collect();
    let named: Vec<(i32, Role)> =
        all.iter().filter_map(|pid| Some((*pid, named(*pid, id)?))).collect();
    let serves = |pid: i32| named.contains(&(pid, Role::Serving));
    let below = |pid: i32| procs::parent(pid).is_ok_and(serves);
    let roles = all.iter().filter_map(|&pid| match named.iter().find(|(named, _)| *named == pid) {
        // A stem shows its shim's command line until it has one of its own.
        Some((_, Role::Serving)) if below(pid) => Some((pid, Role::Stem)),
        Some(found) => Some(*found),
        None => (is_stem(pid) && below(pid)).then_some((pid, Role::Stem)),
    });
    roles.collect()
}

/// The role of a process whose command line names the container.
fn named(pid: i32, id: &str) -> Option<Role> {
    let cmdline = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let mut words = cmdline.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    words.clone().find(|word| *word == id.as_bytes())?;
    Some(match words.next_back() {
        Some(b"start" | b"delete") => Role::Starting,
        _ => Role::Serving,
    })
}

fn is_stem(pid: i32) -> bool {
    fs::read(format!("/proc/{pid}/cmdline"))
        .is_ok_and(|cmdline| cmdline.starts_with(b"shim-stem\0"))
}
