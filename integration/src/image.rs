//! A small image made on the spot: no registry is asked.
//!
//! Its only program is Debian's static busybox, with a symlink for each of its applets.

use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use crate::debs::{Deb, Store};

/// The name under which containerd knows the image.
pub const NAME: &str = "docker.io/library/busybox:test";

/// The name of an image, and its program; every image has the same files.
#[derive(Clone, Copy, Debug)]
pub struct Image {
    /// The name under which containerd knows it.
    pub name: &'static str,
    command: &'static [&'static str],
}

/// The image that containers are made from.
pub const BUSYBOX: Image = Image { name: NAME, command: &["/bin/sh"] };

/// The image that containerd holds a pod's namespaces with: it does nothing, and reaps the orphans
/// of a pod whose processes are shared.
pub const PAUSE: Image = Image {
    name: "docker.io/library/pause:test",
    command: &["/bin/sh", "-c", "trap exit TERM; while :; do sleep 1000 & wait $!; done"],
};

/// The `PATH` of a container's programs.
pub const PATH: &str = "PATH=/bin";

const FOLDERS: &[&str] =
    &["bin", "dev", "etc", "home", "mnt", "proc", "root", "run", "sys", "tmp", "var"];

const FILES: &[(&str, &str)] = &[
    ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nworker:x:1000:1000:worker:/home:/bin/sh\n"),
    ("etc/group", "root:x:0:\nworker:x:1000:\nextra:x:2000:worker\n"),
    ("etc/hostname", "image\n"),
];

/// The image's only layer.
#[derive(Debug)]
pub struct Layer {
    tar: Vec<u8>,
}

impl Layer {
    /// Makes the layer from a fetched busybox.
    ///
    /// # Errors
    /// When busybox was not fetched or cannot name its applets.
    pub fn new(store: &Store) -> Result<Self> {
        let busybox = store.unpacked(Deb::BUSYBOX)?.join("bin/busybox");
        let mut tar = Builder::new(Vec::new());
        for folder in FOLDERS {
            let mode = if *folder == "tmp" { 0o1777 } else { 0o755 };
            add(&mut tar, folder, EntryType::Directory, mode, &[])?;
        }
        for (path, text) in FILES {
            add(&mut tar, path, EntryType::Regular, 0o644, text.as_bytes())?;
        }
        add(&mut tar, "bin/busybox", EntryType::Regular, 0o755, &fs::read(&busybox)?)?;
        for applet in applets(&busybox)?.lines().filter(|applet| *applet != "busybox") {
            link(&mut tar, &format!("bin/{applet}"), "busybox")?;
        }
        // A program by that name is the one that runs it: the way into a runtime's own binary.
        link(&mut tar, "bin/self", "/proc/self/exe")?;
        Ok(Self { tar: tar.into_inner()? })
    }

    /// Unpacks the layer: a root file system without an image.
    ///
    /// # Errors
    /// When `dir` cannot be written to.
    pub fn unpack(&self, dir: &Path) -> Result<()> {
        let mut archive = tar::Archive::new(self.tar.as_slice());
        archive.set_preserve_permissions(true);
        archive.unpack(dir).with_context(|| format!("unpack the layer into {}", dir.display()))
    }

    /// Writes the OCI archive that `ctr images import` reads.
    ///
    /// # Errors
    /// When `file` cannot be written.
    pub fn write_image(&self, file: &Path) -> Result<PathBuf> {
        self.write_images(file, &[BUSYBOX])
    }

    /// The same with several images.
    ///
    /// # Errors
    /// When `file` cannot be written.
    pub fn write_images(&self, file: &Path, images: &[Image]) -> Result<PathBuf> {
        let mut blobs = Blobs::default();
        let manifests: Vec<_> =
            images.iter().map(|image| self.manifest(&mut blobs, *image)).collect();
        let index = json!({ "schemaVersion": 2, "manifests": manifests });

        let mut tar = Builder::new(Vec::new());
        let layout = br#"{"imageLayoutVersion":"1.0.0"}"#;
        add(&mut tar, "oci-layout", EntryType::Regular, 0o644, layout)?;
        add(&mut tar, "index.json", EntryType::Regular, 0o644, index.to_string().as_bytes())?;
        for (digest, bytes) in &blobs.0 {
            add(&mut tar, &format!("blobs/sha256/{digest}"), EntryType::Regular, 0o644, bytes)?;
        }
        fs::write(file, tar.into_inner()?)
            .with_context(|| format!("write the image {}", file.display()))?;
        Ok(file.to_owned())
    }

    /// Adds an image's content, and returns the descriptor of its manifest.
    fn manifest(&self, blobs: &mut Blobs, image: Image) -> Value {
        let layer = blobs.add("application/vnd.oci.image.layer.v1.tar", self.tar.clone());
        let config = blobs.add_json(
            "application/vnd.oci.image.config.v1+json",
            &json!({
                "architecture": architecture(),
                "os": "linux",
                "config": { "Env": [PATH], "Cmd": image.command },
                "rootfs": { "type": "layers", "diff_ids": [layer["digest"]] },
            }),
        );
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({
            "schemaVersion": 2, "mediaType": media_type, "config": config, "layers": [layer],
        });
        let mut manifest = blobs.add_json(media_type, &manifest);
        manifest["annotations"] = json!({ "io.containerd.image.name": image.name });
        manifest
    }
}

/// Content by its digest.
#[derive(Default)]
struct Blobs(BTreeMap<String, Vec<u8>>);

impl Blobs {
    /// Adds content and returns its descriptor.
    fn add(&mut self, media_type: &str, bytes: Vec<u8>) -> Value {
        let digest = hex::encode(Sha256::digest(&bytes));
        let descriptor = json!({
            "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes.len(),
        });
        self.0.insert(digest, bytes);
        descriptor
    }

    fn add_json(&mut self, media_type: &str, value: &Value) -> Value {
        self.add(media_type, value.to_string().into_bytes())
    }
}

fn add(
    tar: &mut Builder<Vec<u8>>,
    path: &str,
    kind: EntryType,
    mode: u32,
    bytes: &[u8],
) -> Result<()> {
    let mut header = header(kind, mode);
    header.set_size(bytes.len().try_into()?);
    tar.append_data(&mut header, path, bytes).with_context(|| format!("add {path}"))
}

fn link(tar: &mut Builder<Vec<u8>>, path: &str, target: &str) -> Result<()> {
    let mut header = header(EntryType::Symlink, 0o777);
    header.set_size(0);
    tar.append_link(&mut header, path, target).with_context(|| format!("add {path}"))
}

/// Root's, of no date: the same content always has the same digest.
fn header(kind: EntryType, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn applets(busybox: &Path) -> Result<String> {
    let output = Command::new(busybox).arg("--list").output().context("run busybox")?;
    ensure!(output.status.success(), "busybox --list: {}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

/// The machine's architecture by Go's name.
fn architecture() -> &'static str {
    match ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
