//! The standard streams of a container's first process: their other ends are the shim's.
//!
//! What they were when they were saved is in a file beside the images, by the names that CRIU has for
//! them: `pipe:[inode]`, as runc writes it, and `file[mount:inode]` for a file of the host's.

use std::{
    fs::{self, File},
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::Path,
};

use nix::{
    errno::Errno,
    unistd::{Whence, lseek},
};
use shim_core::{Context, Result, model::Pid};
use shim_protos::criu::InheritFd;

use super::{
    mounts::{Table, mount_of},
    swrk::FIRST_FILE,
};

/// runc's name for it.
const FILE: &str = "descriptors.json";

/// What the streams of a process are: a name each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Names(Vec<String>);

impl Names {
    /// Looks at a process.
    ///
    /// # Errors
    /// When that has ended.
    pub(super) fn of(init: Pid, table: &Table) -> Result<Self> {
        let names = (0..3).map(|number| name(init, number, table));
        names.collect::<Result<_>>().map(Self).context("look at the standard streams")
    }

    /// Those that CRIU is to leave out. A pipe it leaves out by itself.
    pub(super) fn outer(&self) -> Vec<String> {
        let mut files: Vec<_> = self.0.iter().filter(|name| is_file(name)).cloned().collect();
        files.sort();
        files.dedup();
        files
    }

    /// A new stream in the place of a saved one. CRIU puts a file at its old position, which a pipe has
    /// not: what was no pipe reads and writes nothing from then on, as with runc.
    ///
    /// # Errors
    /// When the stream can't be shared.
    pub(super) fn fit(&self, number: usize, stream: &OwnedFd) -> Result<OwnedFd> {
        let was_file = self.0.get(number).is_some_and(|name| is_file(name));
        if was_file && lseek(stream, 0, Whence::SeekCur) == Err(Errno::ESPIPE) {
            log::info!("stream {number} stays what it was in the checkpoint, which is no pipe");
            return Ok(File::options().read(true).write(true).open("/dev/null")?.into());
        }
        Ok(stream.try_clone()?)
    }

    /// Says which of our files, the streams in their order, CRIU is to put in their places.
    pub(super) fn inherited(&self) -> Vec<InheritFd> {
        let mut given: Vec<InheritFd> = Vec::new();
        for (name, number) in self.0.iter().zip(FIRST_FILE..) {
            let is_outer = name.starts_with("pipe:") || is_file(name);
            if is_outer && !given.iter().any(|known| known.key.as_ref() == Some(name)) {
                let mut one = InheritFd::new();
                one.key = Some(name.clone());
                one.fd = Some(number);
                given.push(one);
            }
        }
        given
    }

    /// Writes them beside the images.
    ///
    /// # Errors
    /// What the disk says.
    pub(super) fn write(&self, image: &Path) -> Result<()> {
        let path = image.join(FILE);
        let written = fs::write(&path, serde_json::to_vec(&self.0)?);
        written.with_context(|| format!("write {}", path.display()))
    }

    /// Reads them back.
    ///
    /// # Errors
    /// When there are none: no runtime has written the images.
    pub(super) fn read(image: &Path) -> Result<Self> {
        let path = image.join(FILE);
        let name = || format!("read {}", path.display());
        let text = fs::read(&path).with_context(name)?;
        serde_json::from_slice(&text).map(Self).with_context(name)
    }
}

fn is_file(name: &str) -> bool {
    name.starts_with("file[")
}

fn name(init: Pid, number: u32, table: &Table) -> Result<String> {
    let path = format!("/proc/{init}/fd/{number}");
    // A stream that is closed is none.
    let Ok(link) = fs::read_link(&path) else { return Ok(String::new()) };
    let link = link.to_string_lossy().into_owned();
    // What has no path is no file, and a path of the container's own is in its checkpoint.
    if !link.starts_with('/') {
        return Ok(link);
    }
    let mount = mount_of(&fs::read_to_string(format!("/proc/{init}/fdinfo/{number}"))?);
    Ok(match mount {
        Some(mount) if !table.has(mount) => {
            // Without opening what is behind it: a fifo would wait, a device might do something.
            let inode = fs::metadata(&path)?.ino();
            format!("file[{mount:x}:{inode:x}]")
        }
        _ => link,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kept_beside_the_images() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Names::read(dir.path()).is_err());
        let names = ["/dev/pts/0", "pipe:[7]", "pipe:[7]"].map(str::to_owned);
        let names = Names(names.to_vec());
        names.write(dir.path()).unwrap();
        assert_eq!(Names::read(dir.path()).unwrap(), names);
        // What runc writes is the same.
        let text = fs::read_to_string(dir.path().join(FILE)).unwrap();
        assert_eq!(text, r#"["/dev/pts/0","pipe:[7]","pipe:[7]"]"#);
    }

    #[test]
    fn each_stream_is_given_once() {
        let names = ["file[18:3]", "pipe:[7]", "pipe:[7]"].map(str::to_owned);
        let names = Names(names.to_vec());
        assert_eq!(names.outer(), ["file[18:3]"]);
        let given = names.inherited();
        let given: Vec<_> = given.iter().map(|one| (one.key.as_deref(), one.fd)).collect();
        assert_eq!(given, [(Some("file[18:3]"), Some(4)), (Some("pipe:[7]"), Some(5))]);
    }

    #[test]
    fn a_file_of_the_same_mounts_is_no_outer_one() {
        let own = Pid::new(std::process::id().cast_signed()).unwrap();
        let names = Names::of(own, &Table::of(own).unwrap()).unwrap();
        assert!(names.outer().is_empty());
    }
}
