//! Container images on disk: OCI layouts and what `docker save` writes, as directory or tar file.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::Progress;
use super::archive::Archive;
use super::layer::{LayerSource, unpack_layers};

/// An image whose layers are unpacked.
#[derive(Clone, Debug)]
pub struct Image {
    layers: Vec<PathBuf>,
    config: ImageConfig,
}

/// What an image says about processes in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageConfig {
    /// The first words of the command line, kept when a user gives his own arguments.
    pub entrypoint: Option<Vec<String>>,
    /// The words after them, replaced by a user's own.
    pub cmd: Option<Vec<String>>,
    /// Variables, `KEY=value` each.
    pub env: Option<Vec<String>>,
    /// The working directory.
    pub working_dir: Option<String>,
    /// `user` or `user:group`, names or numbers.
    pub user: Option<String>,
}

impl ImageConfig {
    /// The command line, given a user's own arguments.
    pub fn command(&self, args: &[String]) -> Vec<String> {
        let entrypoint = self.entrypoint.as_deref().unwrap_or_default();
        let rest = if args.is_empty() { self.cmd.as_deref().unwrap_or_default() } else { args };
        [entrypoint, rest].concat()
    }
}

impl Image {
    /// Opens the image at that path and unpacks the layers that the cache lacks.
    pub fn open(path: &Path, cache: &Path, progress: Progress<'_>) -> Result<Self> {
        let archive = Archive::open(path)?;
        let parts = if archive.contains("index.json") {
            Parts::of_layout(&archive)?
        } else if archive.contains("manifest.json") {
            Parts::of_docker_archive(&archive)?
        } else {
            bail!("neither index.json (OCI) nor manifest.json (docker save) is in it");
        };
        let file: ConfigFile =
            serde_json::from_slice(&parts.config).context("parse the image's config")?;
        let diff_ids = file.rootfs.diff_ids;
        ensure!(
            diff_ids.len() == parts.layers.len(),
            "the config lists {} layers, the manifest {}",
            diff_ids.len(),
            parts.layers.len()
        );
        let sources: Vec<LayerSource> = parts
            .layers
            .into_iter()
            .zip(diff_ids)
            .map(|(name, diff_id)| LayerSource { name, diff_id })
            .collect();
        let mut layers = unpack_layers(&archive, &sources, cache, progress)?;
        ensure!(!layers.is_empty(), "the image has no layers");
        layers.reverse();
        Ok(Self { layers, config: file.config.unwrap_or_default() })
    }

    /// The unpacked layers, the uppermost first.
    pub fn layers(&self) -> &[PathBuf] {
        &self.layers
    }

    /// What the image says about processes in it.
    pub fn config(&self) -> &ImageConfig {
        &self.config
    }
}

/// Whether a directory is an OCI image layout rather than a root filesystem.
pub(super) fn is_layout(path: &Path) -> bool {
    path.join("oci-layout").is_file() && path.join("index.json").is_file()
}

/// The config's bytes and the layers' names in the archive, the lowest first.
struct Parts {
    config: Vec<u8>,
    layers: Vec<String>,
}

#[derive(Deserialize)]
struct ConfigFile {
    config: Option<ImageConfig>,
    rootfs: RootfsSection,
}

#[derive(Deserialize)]
struct RootfsSection {
    #[serde(default)]
    diff_ids: Vec<String>,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    #[serde(rename = "mediaType", default)]
    media_type: String,
    digest: String,
    platform: Option<PlatformSection>,
}

#[derive(Deserialize)]
struct PlatformSection {
    architecture: String,
    os: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerManifest {
    config: String,
    layers: Vec<String>,
}

impl Parts {
    fn of_layout(archive: &Archive) -> Result<Self> {
        let mut document = archive.read("index.json")?;
        // An index may list indexes (one a platform); each level is one more turn.
        for _ in 0..4 {
            let Ok(index) = serde_json::from_slice::<Index>(&document) else { break };
            let chosen = choose(&index.manifests)?;
            document = read_blob(archive, &chosen.digest)?;
        }
        let manifest: Manifest =
            serde_json::from_slice(&document).context("parse the image's manifest")?;
        let layers = manifest
            .layers
            .iter()
            .map(|layer| {
                ensure!(
                    !layer.media_type.contains("zstd"),
                    "layer {} is compressed with zstd; shimctl reads gzip and plain tar",
                    layer.digest
                );
                blob_name(&layer.digest)
            })
            .collect::<Result<_>>()?;
        Ok(Self { config: read_blob(archive, &manifest.config.digest)?, layers })
    }

    fn of_docker_archive(archive: &Archive) -> Result<Self> {
        let text = archive.read("manifest.json")?;
        let manifests: Vec<DockerManifest> =
            serde_json::from_slice(&text).context("parse manifest.json")?;
        let Some(manifest) = manifests.into_iter().next() else {
            bail!("manifest.json lists no image");
        };
        Ok(Self { config: archive.read(&manifest.config)?, layers: manifest.layers })
    }
}

/// The first entry for this machine; one that names no platform will do.
fn choose(manifests: &[Descriptor]) -> Result<&Descriptor> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    };
    let fits = |descriptor: &&Descriptor| match &descriptor.platform {
        Some(platform) => platform.os == "linux" && platform.architecture == architecture,
        None => true,
    };
    manifests.iter().find(fits).with_context(|| {
        let offered: Vec<String> = manifests
            .iter()
            .filter_map(|descriptor| descriptor.platform.as_ref())
            .map(|platform| format!("{}/{}", platform.os, platform.architecture))
            .collect();
        format!("nothing for linux/{architecture} in the image, only {}", offered.join(", "))
    })
}

fn blob_name(digest: &str) -> Result<String> {
    match digest.split_once(':') {
        Some(("sha256", hash)) if is_hex(hash) => Ok(format!("blobs/sha256/{hash}")),
        _ => bail!("digest {digest:?}: shimctl knows sha256 only"),
    }
}

/// Whether that is the hex form of a SHA-256; such a name is safe in a path.
pub(super) fn is_hex(hash: &str) -> bool {
    hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn read_blob(archive: &Archive, digest: &str) -> Result<Vec<u8>> {
    let bytes = archive.read(&blob_name(digest)?)?;
    let actual = format!("sha256:{}", hex::encode(Sha256::digest(&bytes)));
    ensure!(actual == digest, "the image is damaged: {digest} has the content of {actual}");
    Ok(bytes)
}

#[cfg(test)]
mod tests;
