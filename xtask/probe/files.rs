//! Files: the open ones, and those in a directory.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
};

use rustix::fs::{major, minor};
use serde_json::{Map, Value, json};

use crate::{errno, told};

/// The open files, without the one that lists them.
pub(crate) fn descriptors() -> Value {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return Value::Null };
    let numbers = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let files = numbers.collect::<Vec<_>>().into_iter().filter_map(|number| {
        let to = fs::read_link(format!("/proc/self/fd/{number}")).ok()?;
        let to = to.display().to_string();
        // A number is nobody's business: `pipe:[123]` is a pipe.
        let kind = to.split_once(":[").map_or(to.as_str(), |(kind, _)| kind).to_owned();
        Some((number.clone(), json!({ "to": kind, "flags": flags(&number) })))
    });
    files.collect::<Map<_, _>>().into()
}

fn flags(number: &str) -> Value {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap_or_default();
    json!(text.lines().find_map(|line| line.strip_prefix("flags:")).map(str::trim))
}

/// Everything below a directory.
pub(crate) fn tree(top: &str) -> Value {
    let mut all = Map::new();
    walk(Path::new(top), &mut all);
    all.into()
}

fn walk(folder: &Path, all: &mut Map<String, Value>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        all.insert(path.display().to_string(), told(look(&path, false)));
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&path, all);
        }
    }
}

/// One line about what is at a path: `char 1:3 0666 0:0`, or where a symlink leads.
pub(crate) fn look(path: &Path, follows: bool) -> io::Result<String> {
    let found = if follows { fs::metadata(path)? } else { fs::symlink_metadata(path)? };
    let kind = found.file_type();
    if kind.is_symlink() {
        let to = fs::read_link(path);
        return Ok(format!("-> {}", to.map_or_else(|e| errno(&e), |to| to.display().to_string())));
    }
    let number = found.rdev();
    let number = format!("{}:{}", major(number), minor(number));
    let kind = if kind.is_char_device() {
        format!("char {number}")
    } else if kind.is_block_device() {
        format!("block {number}")
    } else if kind.is_dir() {
        "dir".to_owned()
    } else if kind.is_fifo() {
        "fifo".to_owned()
    } else if kind.is_socket() {
        "socket".to_owned()
    } else {
        format!("file of {}", found.len())
    };
    Ok(format!("{kind} {:04o} {}:{}", found.mode() & 0o7777, found.uid(), found.gid()))
}
