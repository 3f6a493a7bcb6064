//! Where a container's root filesystem comes from, without a registry.
//!
//! Four kinds, all handed to the shim as mounts for it to do, as containerd's snapshotters hand
//! theirs: the host's own root and unpacked images below a writable overlay, and a plain directory.

mod archive;
mod image;
mod layer;
mod passwd;
mod unpack;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use shim_protos::types::Mount;

pub use self::image::{Image, ImageConfig};
pub use self::passwd::resolve_user;
use crate::bundle::make_folder;

/// How far the unpacking of an image has come: layers done, layers in all, bytes of this layer.
pub type Progress<'a> = &'a dyn Fn(usize, usize, u64);

/// A source of root filesystems.
#[derive(Clone, Debug)]
pub enum Rootfs {
    /// The host's own root, below an overlay that takes the writes.
    Host,
    /// A directory as it is: what the container writes stays there.
    Directory(PathBuf),
    /// An unpacked image, below an overlay that takes the writes.
    Image(Image),
}

impl Rootfs {
    /// Opens what a person names: the word `host`, a directory, or an image.
    ///
    /// Layers of an image are unpacked below `cache`, once.
    pub fn open(name: &str, cache: &Path, progress: Progress<'_>) -> Result<Self> {
        if name == "host" {
            return Ok(Self::Host);
        }
        let path = fs::canonicalize(name).with_context(|| {
            format!(
                "rootfs {name:?}: expected the word host, a directory, an OCI image layout, or an \
                 image saved as a tar file"
            )
        })?;
        if path.is_dir() && !image::is_layout(&path) {
            return Ok(Self::Directory(path));
        }
        let image = Image::open(&path, cache, progress)
            .with_context(|| format!("image {}", path.display()))?;
        Ok(Self::Image(image))
    }

    /// The mounts that make a root filesystem; what the container writes goes below `scratch`.
    pub fn mounts(&self, scratch: &Path) -> Result<Vec<Mount>> {
        let mount = match self {
            Self::Host => overlay(&[PathBuf::from("/")], scratch)?,
            Self::Image(image) => overlay(image.layers(), scratch)?,
            Self::Directory(path) => Mount {
                type_: "bind".to_owned(),
                source: text(path)?,
                options: vec!["rbind".to_owned(), "rw".to_owned()],
                ..Mount::default()
            },
        };
        Ok(vec![mount])
    }

    /// What the image says about processes in it; nothing for what is no image.
    pub fn config(&self) -> ImageConfig {
        match self {
            Self::Image(image) => image.config().clone(),
            Self::Host | Self::Directory(_) => ImageConfig::default(),
        }
    }

    /// Reads a text file of the root filesystem before it is mounted; a missing one is empty.
    pub fn read(&self, path: &str) -> String {
        let relative = path.trim_start_matches('/');
        let folders = match self {
            Self::Host => vec![PathBuf::from("/")],
            Self::Directory(folder) => vec![folder.clone()],
            Self::Image(image) => image.layers().to_vec(),
        };
        // The uppermost layer that has the file hides all others.
        folders
            .iter()
            .find_map(|folder| unpack::read_in(folder, Path::new(relative)))
            .unwrap_or_default()
    }
}

/// An overlay mount over those directories, the uppermost first.
fn overlay(lower: &[PathBuf], scratch: &Path) -> Result<Mount> {
    let (upper, work) = (scratch.join("upper"), scratch.join("work"));
    make_folder(&upper, 0o755)?;
    make_folder(&work, 0o700)?;
    let lower: Vec<String> = lower.iter().map(|path| text(path)).collect::<Result<_>>()?;
    if let Some(path) = lower.iter().find(|path| path.contains([':', ','])) {
        bail!("{path}: overlay options cannot carry a path with a colon or a comma");
    }
    Ok(Mount {
        type_: "overlay".to_owned(),
        source: "overlay".to_owned(),
        options: vec![
            format!("workdir={}", text(&work)?),
            format!("upperdir={}", text(&upper)?),
            format!("lowerdir={}", lower.join(":")),
        ],
        ..Mount::default()
    })
}

fn text(path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).with_context(|| format!("path {path:?} is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_the_lower_side_of_an_overlay() {
        let dir = tempfile::tempdir().unwrap();
        let mounts = Rootfs::Host.mounts(dir.path()).unwrap();
        assert_eq!(mounts.len(), 1);
        assert_eq!(mounts[0].type_, "overlay");
        assert!(mounts[0].options.contains(&"lowerdir=/".to_owned()));
        assert!(dir.path().join("upper").is_dir() && dir.path().join("work").is_dir());
    }

    #[test]
    fn a_plain_directory_is_bound() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("etc")).unwrap();
        fs::write(dir.path().join("etc/passwd"), "me").unwrap();
        let name = dir.path().to_str().unwrap();
        let rootfs = Rootfs::open(name, Path::new("/nonexistent"), &|_, _, _| {}).unwrap();
        assert_eq!(rootfs.mounts(dir.path()).unwrap()[0].type_, "bind");
        assert_eq!(rootfs.read("/etc/passwd"), "me");
        assert_eq!(rootfs.read("/etc/group"), "");
    }

    #[test]
    fn an_unknown_name_tells_what_is_expected() {
        let error = Rootfs::open("/no/such", Path::new("/c"), &|_, _, _| {}).unwrap_err();
        assert!(format!("{error:#}").contains("the word host"));
    }

    #[test]
    fn overlay_refuses_paths_that_would_break_its_options() {
        let dir = tempfile::tempdir().unwrap();
        assert!(overlay(&[PathBuf::from("/a:b")], dir.path()).is_err());
    }
}
