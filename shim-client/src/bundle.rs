//! The bundle: the directory that containerd makes for a container and hands to its shim.
//!
//! ```text
//! <parent>/<id>/config.json       the OCI spec
//!               rootfs/           where the shim mounts the root filesystem
//!               log               fifo for the shim's log
//!               work -> <work>
//!               address           written by the shim
//!               shim-binary-path, bootstrap.json    written after `start`
//! ```

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::Value;

use crate::answer::Answer;
use crate::binary::ShimBinary;
use crate::generation::Generation;
use crate::id::check_id;
use crate::mounts::unmount_below;

/// A bundle on disk. Dropping the value leaves the files: [`Bundle::remove`] takes them away.
#[derive(Clone, Debug)]
pub struct Bundle {
    id: String,
    path: PathBuf,
}

impl Bundle {
    /// Makes the bundle of container `id` below `parent`, with a scratch directory at `work`.
    ///
    /// Both are absolute paths. Without a spec there is no `config.json`, as containerd does for a
    /// sandbox that has none.
    pub fn create(parent: &Path, id: &str, work: &Path, spec: Option<&Value>) -> Result<Self> {
        check_id("container", id)?;
        let bundle = Self { id: id.to_owned(), path: parent.join(id) };
        make_folder(parent, 0o711)?;
        match DirBuilder::new().mode(0o700).create(&bundle.path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => bail!(
                "container {id} exists already: its bundle is {}; choose another name, or remove \
                 it with `shimctl rm -f {id}`",
                bundle.path.display()
            ),
            made => made.with_context(|| format!("create {}", bundle.path.display()))?,
        }
        let filled = bundle.fill(work, spec);
        if filled.is_err() {
            // The error that stopped us says more than one about cleaning up after it.
            let _ = bundle.remove();
        }
        filled.map(|()| bundle)
    }

    /// The bundle at a path where [`Bundle::create`] made one.
    pub fn open(path: &Path) -> Result<Self> {
        let id = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        check_id("bundle", id)?;
        Ok(Self { id: id.to_owned(), path: path.to_owned() })
    }

    fn fill(&self, work: &Path, spec: Option<&Value>) -> Result<()> {
        make_folder(&self.rootfs(), 0o711)?;
        make_folder(work, 0o711)?;
        symlink(work, self.path.join("work")).context("link the work directory")?;
        if let Some(spec) = spec {
            let text = serde_json::to_vec(spec).context("encode the spec")?;
            fs::write(self.config(), text).context("write config.json")?;
        }
        mkfifo(&self.log(), Mode::S_IRWXU).context("create the log fifo")?;
        Ok(())
    }

    /// The container's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The directory itself, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the root filesystem goes.
    pub fn rootfs(&self) -> PathBuf {
        self.path.join("rootfs")
    }

    /// The OCI spec.
    pub fn config(&self) -> PathBuf {
        self.path.join("config.json")
    }

    /// The fifo that the shim logs to.
    pub fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// Reads the spec back.
    pub fn spec(&self) -> Result<Value> {
        let path = self.config();
        let text = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("parse {}", path.display()))
    }

    /// Keeps what containerd keeps of a started shim, to find it again after a restart.
    pub(crate) fn keep_start(
        &self,
        generation: Generation,
        binary: &ShimBinary,
        answer: &Answer,
    ) -> Result<()> {
        let path = self.path.join("shim-binary-path");
        fs::write(&path, binary.path().as_os_str().as_encoded_bytes())
            .and_then(|()| fs::set_permissions(&path, Permissions::from_mode(0o600)))
            .context("write shim-binary-path")?;
        if generation.keeps_answer() {
            let text = serde_json::to_vec(answer).context("encode the answer")?;
            fs::write(self.path.join("bootstrap.json"), text).context("write bootstrap.json")?;
        }
        Ok(())
    }

    /// How a shim that was started here is reached, as a restarted daemon finds out: by its own
    /// record, or by the file that the shim wrote.
    pub fn kept_answer(&self) -> Result<Answer> {
        let read = |name| fs::read(self.path.join(name));
        let text = read("bootstrap.json").or_else(|_| read("address"));
        let text = text.context("no shim has been started in this bundle")?;
        Answer::parse(Generation::V2_0, &text)
    }

    /// Unmounts the rootfs and removes the bundle with its work directory.
    ///
    /// The bundle first gets another name: a removal that is cut short leaves nothing that looks
    /// like a container.
    pub fn remove(&self) -> Result<()> {
        if !self.path.exists() {
            return Ok(());
        }
        unmount_below(&self.rootfs())?;
        if let Ok(work) = fs::read_link(self.path.join("work")) {
            remove_tree(&work)?;
        }
        let condemned = self.path.with_file_name(format!(".{}", self.id));
        fs::rename(&self.path, &condemned)
            .with_context(|| format!("rename {}", self.path.display()))?;
        remove_tree(&condemned)
    }
}

/// Creates a directory and its missing parents; one that exists keeps its mode.
pub(crate) fn make_folder(path: &Path, mode: u32) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .with_context(|| format!("create directory {}", path.display()))
}

/// Removes a directory with all below it; one that is already gone is fine.
pub(crate) fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileTypeExt;

    use serde_json::json;

    use super::*;

    #[test]
    fn a_bundle_has_what_containerd_makes_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (parent, work) = (dir.path().join("bundles"), dir.path().join("scratch/c1"));
        let spec = json!({"ociVersion": "1.1.0"});
        let bundle = Bundle::create(&parent, "c1", &work, Some(&spec)).unwrap();

        assert_eq!(bundle.spec().unwrap(), spec);
        assert!(bundle.rootfs().is_dir());
        assert!(fs::metadata(bundle.log()).unwrap().file_type().is_fifo());
        assert_eq!(fs::read_link(bundle.path().join("work")).unwrap(), work);
        assert_eq!(fs::metadata(bundle.path()).unwrap().permissions().mode() & 0o777, 0o700);

        assert!(Bundle::create(&parent, "c1", &work, None).is_err());
        assert!(bundle.path().exists(), "the first container is unharmed");

        Bundle::open(bundle.path()).unwrap().remove().unwrap();
        bundle.remove().unwrap();
        assert_eq!(fs::read_dir(&parent).unwrap().count(), 0);
        assert!(!dir.path().join("scratch/c1").exists());
    }

    #[test]
    fn an_answer_is_kept_from_2_0() {
        let dir = tempfile::tempdir().unwrap();
        let shim = ShimBinary::resolve("/bin/true").unwrap();
        let answer =
            Answer { version: 3, address: "unix:///s".to_owned(), protocol: "ttrpc".to_owned() };
        for (id, generation) in [("old", Generation::V1_7), ("new", Generation::V2_0)] {
            let work = dir.path().join("work").join(id);
            let bundle = Bundle::create(&dir.path().join("b"), id, &work, None).unwrap();
            bundle.keep_start(generation, &shim, &answer).unwrap();
            let kept = fs::read_to_string(bundle.path().join("bootstrap.json")).ok();
            if id == "new" {
                assert_eq!(bundle.kept_answer().unwrap(), answer);
            } else {
                assert!(bundle.kept_answer().is_err());
                fs::write(bundle.path().join("address"), "unix:///old").unwrap();
                assert_eq!(bundle.kept_answer().unwrap().address, "unix:///old");
            }
            let expected = r#"{"version":3,"address":"unix:///s","protocol":"ttrpc"}"#;
            assert_eq!(kept.as_deref(), (id == "new").then_some(expected));
            assert!(bundle.path().join("shim-binary-path").exists());
        }
    }
}
