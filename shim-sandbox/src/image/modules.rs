//! Which of a kernel's modules a guest needs, and in which order they are loaded.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    path::{Path, PathBuf},
};

use shim_core::{Context, Error, Result};

use super::{decompress::decompress, elf::Elf};

/// What a guest cannot do without: its line, its share, its network, layers. What it has no use for is
/// left out: a large filesystem's module takes an emulated processor longer than the kernel itself.
const NEEDED: [&str; 5] = ["virtio_pci", "virtio_console", "virtiofs", "virtio_net", "overlay"];

/// A module as it is loaded.
#[derive(Debug)]
pub(super) struct Module {
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
}

/// The modules of a guest, each behind those it depends on.
///
/// # Errors
/// When one is missing that is needed.
pub(super) fn choose(folder: &Path) -> Result<Vec<Module>> {
    let mut tree = Tree::read(folder)?;
    for name in NEEDED {
        tree.add(name, &[])?;
    }
    Ok(tree.chosen)
}

struct Tree {
    folder: PathBuf,
    files: BTreeMap<String, PathBuf>,
    /// Part of the kernel itself.
    builtin: HashSet<String>,
    added: HashSet<String>,
    chosen: Vec<Module>,
}

impl Tree {
    fn read(folder: &Path) -> Result<Self> {
        let mut files = BTreeMap::new();
        find(&folder.join("kernel"), &mut files)?;
        let list = folder.join("modules.builtin");
        let builtin =
            fs::read_to_string(&list).with_context(|| format!("read {}", list.display()))?;
        let builtin = builtin.lines().filter_map(|path| name_of(Path::new(path))).collect();
        let (added, chosen) = (HashSet::new(), Vec::new());
        Ok(Self { folder: folder.to_owned(), files, builtin, added, chosen })
    }

    /// Adds a module behind what it needs. `above` are those that have asked for it.
    fn add(&mut self, name: &str, above: &[&str]) -> Result<()> {
        if self.added.contains(name) || self.builtin.contains(name) || above.contains(&name) {
            return Ok(());
        }
        let path = self.files.get(name).ok_or_else(|| self.missing(name, above))?;
        let packed = fs::read(path).with_context(|| format!("read {}", path.display()))?;
        let module = || format!("module {}", path.display());
        let bytes = decompress(&packed).with_context(module)?.into_owned();
        let elf = Elf::parse(&bytes).with_context(module)?;
        let info = elf.section(".modinfo").unwrap_or_default();
        let above: Vec<_> = above.iter().copied().chain([name]).collect();
        for needed in depends(info) {
            self.add(&needed, &above)?;
        }
        for helpful in helped_by(info) {
            if self.files.contains_key(&helpful) {
                self.add(&helpful, &above)?;
            }
        }
        self.added.insert(name.to_owned());
        self.chosen.push(Module { name: name.to_owned(), bytes });
        Ok(())
    }

    fn missing(&self, name: &str, above: &[&str]) -> Error {
        let folder = self.folder.display();
        let by = above.last().map(|by| format!(", which {by} needs")).unwrap_or_default();
        Error::not_found(format!("{folder} has no module {name}{by}"))
    }
}

/// Notes all modules below a folder.
fn find(folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("read {}", folder.display()))?;
        let path = entry.path();
        if entry.file_type().with_context(|| format!("look at {}", path.display()))?.is_dir() {
            find(&path, files)?;
        } else if let Some(name) = name_of(&path) {
            files.insert(name, path);
        }
    }
    Ok(())
}

/// The module's name by its file's.
fn name_of(path: &Path) -> Option<String> {
    let (name, _compressed) = path.file_name()?.to_str()?.split_once(".ko")?;
    Some(name.replace('-', "_"))
}

/// `depends=a,b` of a module's own words.
fn depends(info: &[u8]) -> Vec<String> {
    let words = words(info).filter_map(|word| word.strip_prefix("depends="));
    let names = words.flat_map(|names| names.split(','));
    names.filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

/// `softdep=pre: a b post: c`: what is better there before.
fn helped_by(info: &[u8]) -> Vec<String> {
    let words = words(info).filter_map(|word| word.strip_prefix("softdep=pre:"));
    let before = words.filter_map(|names| names.split("post:").next());
    before.flat_map(str::split_whitespace).map(|name| name.replace('-', "_")).collect()
}

fn words(info: &[u8]) -> impl Iterator<Item = &str> {
    info.split(|byte| *byte == 0).filter_map(|word| std::str::from_utf8(word).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_tells_what_it_needs() {
        let info = b"license=GPL\0depends=net-failover,failover\0softdep=pre: crc32c post: x\0";
        assert_eq!(depends(info), ["net_failover", "failover"]);
        assert_eq!(helped_by(info), ["crc32c"]);
        assert!(depends(b"depends=\0").is_empty());
        for file in ["a/virtio-rng.ko", "virtio-rng.ko.xz", "virtio_rng.ko.zst"] {
            assert_eq!(name_of(Path::new(file)).unwrap(), "virtio_rng");
        }
        assert!(name_of(Path::new("modules.dep")).is_none());
    }

    #[test]
    fn a_kernel_without_a_needed_module_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("kernel")).unwrap();
        let builtin = "kernel/drivers/virtio/virtio_pci.ko\nkernel/fs/fuse/virtiofs.ko\n";
        fs::write(folder.path().join("modules.builtin"), builtin).unwrap();
        let err = choose(folder.path()).unwrap_err();
        assert!(err.to_string().ends_with("has no module virtio_console"), "{err}");
    }
}
