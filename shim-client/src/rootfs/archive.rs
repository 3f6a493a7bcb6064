//! Files of an image by name: from a directory, or from inside a tar file.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Take};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};

/// A directory, or a tar file with an index of what is where.
#[derive(Debug)]
pub(super) enum Archive {
    Directory(PathBuf),
    Tar { path: PathBuf, entries: HashMap<PathBuf, Place> },
}

/// Where in a tar file a member's bytes are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    offset: u64,
    size: u64,
}

impl Archive {
    pub(super) fn open(path: &Path) -> Result<Self> {
        if path.is_dir() {
            return Ok(Self::Directory(path.to_owned()));
        }
        let mut file = File::open(path).context("open")?;
        let mut magic = [0; 2];
        if file.read_exact(&mut magic).is_ok() && magic == [0x1f, 0x8b] {
            bail!("the file is compressed as a whole: gunzip it first");
        }
        file.rewind().context("rewind")?;
        Ok(Self::Tar { path: path.to_owned(), entries: index(&file)? })
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        match self {
            Self::Directory(folder) => folder.join(name).is_file(),
            Self::Tar { entries, .. } => entries.contains_key(Path::new(name)),
        }
    }

    /// Opens a member for reading from its beginning.
    pub(super) fn reader(&self, name: &str) -> Result<Take<File>> {
        let relative = clean(Path::new(name))?;
        match self {
            Self::Directory(folder) => {
                let file = File::open(folder.join(&relative))
                    .with_context(|| format!("open {name} of the image"))?;
                let size = file.metadata().context("size")?.len();
                Ok(file.take(size))
            }
            Self::Tar { path, entries } => {
                let place = entries
                    .get(&relative)
                    .ok_or_else(|| anyhow!("the image lacks its file {name}"))?;
                let mut file = File::open(path).context("open")?;
                file.seek(SeekFrom::Start(place.offset)).context("seek")?;
                Ok(file.take(place.size))
            }
        }
    }

    /// Reads a small member as a whole.
    pub(super) fn read(&self, name: &str) -> Result<Vec<u8>> {
        /// Far above any manifest; keeps a damaged index from filling the memory.
        const MAX_DOCUMENT: u64 = 16 << 20;
        let mut bytes = Vec::new();
        self.reader(name)?
            .take(MAX_DOCUMENT)
            .read_to_end(&mut bytes)
            .with_context(|| format!("read {name} of the image"))?;
        Ok(bytes)
    }
}

fn index(file: &File) -> Result<HashMap<PathBuf, Place>> {
    let mut entries = HashMap::new();
    let mut links = Vec::new();
    for entry in tar::Archive::new(file).entries_with_seek().context("read the tar file")? {
        let entry = entry.context("read the tar file: is it one?")?;
        let name = clean(&entry.path().context("a name in the tar file")?)?;
        if entry.header().entry_type().is_file() {
            let place = Place { offset: entry.raw_file_position(), size: entry.size() };
            entries.insert(name, place);
        } else if let Some(target) = entry.link_name().context("a link in the tar file")? {
            links.push((name, target.into_owned(), entry.header().entry_type().is_symlink()));
        }
    }
    // `docker save` stores a layer that two images share once, and links the other name to it.
    for (name, target, is_symlink) in links {
        let base = if is_symlink { name.parent().unwrap_or(Path::new("")) } else { Path::new("") };
        if let Some(place) = entries.get(&lexical(&base.join(target))).copied() {
            entries.insert(name, place);
        }
    }
    Ok(entries)
}

/// A relative path without `.` and a leading `/`; one with `..` is refused.
pub(super) fn clean(path: &Path) -> Result<PathBuf> {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                bail!("the path {} leads out of the image", path.display());
            }
        }
    }
    Ok(clean)
}

/// Takes `..` for "drop the last", as links between members of an archive mean it.
fn lexical(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => drop(out.pop()),
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_of_a_tar_file_are_found_through_links_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar");
        let mut tar = tar::Builder::new(File::create(&path).unwrap());
        let mut header = tar::Header::new_gnu();
        header.set_size(3);
        header.set_mode(0o644);
        tar.append_data(&mut header, "./x/layer.tar", &b"abc"[..]).unwrap();
        let mut link = tar::Header::new_gnu();
        link.set_entry_type(tar::EntryType::Symlink);
        link.set_size(0);
        tar.append_link(&mut link, "y/layer.tar", "../x/layer.tar").unwrap();
        tar.finish().unwrap();

        let archive = Archive::open(&path).unwrap();
        assert_eq!(archive.read("x/layer.tar").unwrap(), b"abc");
        assert_eq!(archive.read("y/layer.tar").unwrap(), b"abc");
        assert!(archive.contains("x/layer.tar") && !archive.contains("z"));
        assert!(archive.read("../x").is_err());
    }

    #[test]
    fn a_compressed_file_is_named_as_such() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar.gz");
        std::fs::write(&path, [0x1f, 0x8b, 8, 0]).unwrap();
        assert!(Archive::open(&path).unwrap_err().to_string().contains("gunzip"));
    }

    #[test]
    fn paths_stay_inside() {
        assert_eq!(clean(Path::new("/a/./b/")).unwrap(), Path::new("a/b"));
        assert!(clean(Path::new("a/../../b")).is_err());
        assert_eq!(lexical(Path::new("y/../x/l")), Path::new("x/l"));
    }
}
