//! A copy of the tree to change, which keeps what is built between two runs.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::list::Mutant;
use crate::sh;

/// The copy.
pub(super) struct Copy {
    folder: PathBuf,
    tree: PathBuf,
    target: PathBuf,
}

/// A changed copy.
#[must_use]
pub(super) struct Mutated {
    /// Files by what they were.
    before: Vec<(PathBuf, String)>,
}

impl Copy {
    /// Copies every file that git knows or would. One that is there already is left alone, or cargo
    /// would build it again.
    pub(super) fn make() -> Result<Self> {
        let folder = sh::target().join("mutants");
        let (tree, target) = (folder.join("tree"), folder.join("target"));
        let copy = Self { folder, tree, target };
        let mut list = Command::new("git");
        list.current_dir(sh::root()).args(["ls-files", "-co", "--exclude-standard"]);
        let listed = sh::output(&mut list)?;
        let files: Vec<_> = listed.lines().filter(|file| sh::root().join(file).is_file()).collect();
        for file in &files {
            copy_file(&sh::root().join(file), &copy.tree.join(file))?;
        }
        copy.remove_others(&copy.tree, &files)?;
        Ok(copy)
    }

    /// Where it is, and what is built of it.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// What is in the tree no more.
    fn remove_others(&self, directory: &Path, files: &[&str]) -> Result<()> {
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if path.is_dir() {
                self.remove_others(&path, files)?;
                continue;
            }
            let name = path.strip_prefix(&self.tree)?;
            if !files.iter().any(|file| Path::new(file) == name) {
                fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
            }
        }
        Ok(())
    }

    /// Takes a check out.
    pub(super) fn mutate(&self, mutant: &Mutant) -> Result<Mutated> {
        let mut before = Vec::new();
        for change in &mutant.changes {
            let path = self.tree.join(&change.file);
            let text =
                fs::read_to_string(&path).with_context(|| format!("read {}", change.file))?;
            fs::write(&path, change.apply(&text)?)?;
            before.push((path, text));
        }
        Ok(Mutated { before })
    }

    /// cargo, in the copy.
    pub(super) fn cargo(&self) -> Command {
        let mut cargo = sh::cargo();
        cargo.current_dir(&self.tree).env("CARGO_TARGET_DIR", &self.target);
        cargo
    }
}

impl Mutated {
    /// Puts the check back.
    pub(super) fn restore(self) -> Result<()> {
        // The first one last: a file may have been changed twice.
        for (path, text) in self.before.into_iter().rev() {
            fs::write(&path, text).with_context(|| format!("restore {}", path.display()))?;
        }
        Ok(())
    }
}

fn copy_file(from: &Path, to: &Path) -> Result<()> {
    let bytes = fs::read(from).with_context(|| format!("read {}", from.display()))?;
    if fs::read(to).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    let above = to.parent().context("a file of the tree is in a directory")?;
    fs::create_dir_all(above).with_context(|| format!("make {}", above.display()))?;
    fs::copy(from, to).with_context(|| format!("write {}", to.display()))?;
    // Newer than all that was built of it, whatever the original's age.
    fs::File::options().write(true).open(to)?.set_modified(std::time::SystemTime::now())?;
    Ok(())
}
