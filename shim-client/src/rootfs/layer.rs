//! Layers of an image, unpacked once each into a cache that is keyed by their content.
//!
//! The key is the chain id of the OCI image spec: a hash over the layer and all below it, since
//! what a layer leaves unsaid (the modes of directories it only passes through) comes from below.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Take};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use flate2::bufread::MultiGzDecoder;
use sha2::{Digest, Sha256};

use super::Progress;
use super::archive::Archive;
use super::image::is_hex;
use super::unpack::unpack;
use crate::bundle::{make_folder, remove_tree};
use crate::id::random_id;

/// A layer's file in an image, and the hash of its uncompressed content.
#[derive(Debug)]
pub(super) struct LayerSource {
    pub(super) name: String,
    pub(super) diff_id: String,
}

/// Unpacks the layers that the cache lacks; the folders come back lowest first.
pub(super) fn unpack_layers(
    archive: &Archive,
    sources: &[LayerSource],
    cache: &Path,
    progress: Progress<'_>,
) -> Result<Vec<PathBuf>> {
    let store = cache.join("layers");
    make_folder(&store, 0o700)?;
    let mut chain = String::new();
    let mut done: Vec<PathBuf> = Vec::new();
    for (number, source) in sources.iter().enumerate() {
        let digest = source.diff_id.strip_prefix("sha256:").unwrap_or_default();
        ensure!(is_hex(digest), "diff id {:?}: shimctl knows sha256 only", source.diff_id);
        chain = chain_id(&chain, &source.diff_id);
        // Half the hash names the folder: an overlay's options have one page for all of them.
        let folder = store.join(&chain["sha256:".len()..][..32]);
        if !folder.is_dir() {
            let report = |bytes| progress(number, sources.len(), bytes);
            add_layer(archive, source, &done, &folder, &report)
                .with_context(|| format!("layer {}", source.name))?;
        }
        done.push(folder);
    }
    Ok(done)
}

fn chain_id(below: &str, diff_id: &str) -> String {
    if below.is_empty() {
        return diff_id.to_owned();
    }
    format!("sha256:{}", hex::encode(Sha256::digest(format!("{below} {diff_id}"))))
}

/// Unpacks under another name, and gives the folder its own once it is whole.
fn add_layer(
    archive: &Archive,
    source: &LayerSource,
    below: &[PathBuf],
    folder: &Path,
    report: &dyn Fn(u64),
) -> Result<()> {
    let unfinished = folder.with_file_name(format!(".{}", random_id()?));
    make_folder(&unfinished, 0o755)?;
    let filled = fill(archive, source, below, &unfinished, report);
    let placed = filled.and_then(|()| match fs::rename(&unfinished, folder) {
        // Another process has unpacked the same layer meanwhile.
        Err(_) if folder.is_dir() => remove_tree(&unfinished),
        renamed => renamed.context("rename the unpacked layer"),
    });
    if placed.is_err() {
        let _ = remove_tree(&unfinished);
    }
    placed
}

fn fill(
    archive: &Archive,
    source: &LayerSource,
    below: &[PathBuf],
    folder: &Path,
    report: &dyn Fn(u64),
) -> Result<()> {
    let mut content = Hashed::new(decompress(archive, &source.name)?, report);
    unpack(&mut content, folder, below)?;
    // The hash covers the padding behind the last entry too.
    io::copy(&mut content, &mut io::sink()).context("read to the end")?;
    let actual = content.digest();
    ensure!(
        actual == source.diff_id,
        "the image is damaged: content of {actual}, not {}",
        source.diff_id
    );
    Ok(())
}

fn decompress(archive: &Archive, name: &str) -> Result<Box<dyn Read>> {
    let mut magic = [0; 4];
    let read = archive.reader(name)?.read(&mut magic).context("read")?;
    let whole: BufReader<Take<File>> = BufReader::new(archive.reader(name)?);
    match &magic[..read] {
        [0x1f, 0x8b, ..] => Ok(Box::new(MultiGzDecoder::new(whole))),
        [0x28, 0xb5, 0x2f, 0xfd] => {
            bail!("compressed with zstd; shimctl reads gzip and plain tar")
        }
        _ => Ok(Box::new(whole)),
    }
}

/// Passes bytes through, hashing and counting them.
struct Hashed<'a> {
    source: Box<dyn Read>,
    hash: Sha256,
    bytes: u64,
    report: &'a dyn Fn(u64),
}

impl<'a> Hashed<'a> {
    fn new(source: Box<dyn Read>, report: &'a dyn Fn(u64)) -> Self {
        Self { source, hash: Sha256::new(), bytes: 0, report }
    }

    fn digest(self) -> String {
        format!("sha256:{}", hex::encode(self.hash.finalize()))
    }
}

impl Read for Hashed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.hash.update(&buffer[..count]);
        self.bytes += count as u64;
        (self.report)(self.bytes);
        Ok(count)
    }
}
