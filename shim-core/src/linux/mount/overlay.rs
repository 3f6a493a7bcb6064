//! Overlays of many layers: mount(2) copies one page of options, and their paths are longer than that.
//!
//! The lower directories share a long prefix. Standing in it, they can be named relative to it.
//! Only one thread may stand there, so it is one of its own, with a working directory of its own.

use std::{fs, io, path::Path, thread};

use nix::{
    mount::mount,
    sched::{CloneFlags, unshare},
    unistd::fchdir,
};

use super::options::Options;
use crate::{
    error::{Context, Error, Result},
    model::Mount,
};

/// The longest option string that mount(2) surely takes, with room for what the kernel adds.
pub(super) const LONGEST: usize = 4096 - 512;

/// Mounts an overlay with relative lower directories.
pub(super) fn mount_long(each: &Mount, options: &Options, target: &Path) -> Result<()> {
    let (prefix, data) = shorten(&options.data)
        .filter(|(_, data)| data.len() <= LONGEST)
        .ok_or_else(|| Error::invalid("the overlay has more layers than mount(2) takes"))?;
    let prefix = fs::File::open(&prefix).with_context(|| format!("open {prefix}"))?;
    thread::scope(|scope| {
        let attach = || -> io::Result<()> {
            unshare(CloneFlags::CLONE_FS)?;
            fchdir(&prefix)?;
            let (source, kind) = (each.source.as_str(), each.kind.as_str());
            mount(Some(source), target, Some(kind), options.flags, Some(data.as_str()))?;
            Ok(())
        };
        let done = thread::Builder::new().spawn_scoped(scope, attach).context("make a thread")?;
        done.join().map_err(|_| Error::other("the mounting thread died"))?.map_err(Error::from)
    })
}

/// Takes the common parent of all lower directories out of them.
fn shorten(data: &str) -> Option<(String, String)> {
    let lower = data.split(',').find_map(|option| option.strip_prefix("lowerdir="))?;
    let layers: Vec<&str> = lower.split(':').collect();
    let mut prefix = layers.first()?.rsplit_once('/')?.0;
    while !layers.iter().all(|layer| within(layer, prefix)) {
        prefix = prefix.rsplit_once('/')?.0;
    }
    if prefix.is_empty() {
        return None;
    }
    let relative: Vec<&str> = layers.iter().map(|layer| &layer[prefix.len() + 1..]).collect();
    let lower = format!("lowerdir={}", relative.join(":"));
    let data: Vec<&str> = data
        .split(',')
        .map(|option| if option.starts_with("lowerdir=") { lower.as_str() } else { option })
        .collect();
    Some((prefix.to_owned(), data.join(",")))
}

fn within(layer: &str, prefix: &str) -> bool {
    layer.strip_prefix(prefix).is_some_and(|rest| rest.len() > 1 && rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_common_parent_is_taken_out() {
        let data = "index=off,lowerdir=/var/snap/12/fs:/var/snap/1/fs,upperdir=/u,workdir=/w";
        let (prefix, short) = shorten(data).unwrap();
        assert_eq!(prefix, "/var/snap");
        assert_eq!(short, "index=off,lowerdir=12/fs:1/fs,upperdir=/u,workdir=/w");
    }

    #[test]
    fn one_layer_keeps_a_name_of_its_own() {
        assert_eq!(shorten("lowerdir=/a/b").unwrap(), ("/a".into(), "lowerdir=b".into()));
        assert!(shorten("lowerdir=/a:/b").is_none());
    }
}
