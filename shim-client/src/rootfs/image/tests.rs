//! Images made on the spot, in each form that shimctl reads.

use std::fs::{self, File};
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use super::*;

fn sha(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// A layer of one file, owned by whoever runs the test.
fn layer(name: &str, text: &str) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    header.set_uid(nix::unistd::geteuid().as_raw().into());
    header.set_gid(nix::unistd::getegid().as_raw().into());
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_data(&mut header, name, text.as_bytes()).unwrap();
    tar.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn config(layers: &[Vec<u8>]) -> Vec<u8> {
    let ids: Vec<String> = layers.iter().map(|layer| sha(layer)).collect();
    json!({
        "architecture": "amd64",
        "config": { "Entrypoint": ["/e"], "Cmd": ["c"], "Env": ["A=1"], "WorkingDir": "/w",
            "User": null },
        "rootfs": { "type": "layers", "diff_ids": ids },
    })
    .to_string()
    .into_bytes()
}

fn layout(dir: &Path, layers: &[Vec<u8>], platform: Option<Value>) {
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let add = |bytes: &[u8]| {
        let digest = sha(bytes);
        fs::write(blobs.join(&digest["sha256:".len()..]), bytes).unwrap();
        json!({ "digest": digest, "size": bytes.len() })
    };
    let manifest = json!({
        "schemaVersion": 2,
        "config": add(&config(layers)),
        "layers": layers.iter().map(|layer| add(&gzip(layer))).collect::<Vec<_>>(),
    });
    let mut entry = add(manifest.to_string().as_bytes());
    if let Some(platform) = platform {
        entry["platform"] = platform;
    }
    let nested = add(json!({ "manifests": [entry] }).to_string().as_bytes());
    fs::write(dir.join("index.json"), json!({ "manifests": [nested] }).to_string()).unwrap();
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

fn two_layers() -> Vec<Vec<u8>> {
    vec![layer("a", "lower"), layer("b", "upper")]
}

fn check(image: &Image) {
    assert_eq!(fs::read_to_string(image.layers()[0].join("b")).unwrap(), "upper");
    assert_eq!(fs::read_to_string(image.layers()[1].join("a")).unwrap(), "lower");
    assert_eq!(image.config().command(&[]), ["/e", "c"]);
    assert_eq!(image.config().command(&["x".to_owned()]), ["/e", "x"]);
    assert_eq!(image.config().working_dir.as_deref(), Some("/w"));
    assert_eq!(image.config().user, None);
}

#[test]
fn a_layout_is_unpacked_once_into_the_cache() {
    let dir = tempfile::tempdir().unwrap();
    let cache = tempfile::tempdir().unwrap();
    layout(dir.path(), &two_layers(), None);
    assert!(is_layout(dir.path()));
    let image = Image::open(dir.path(), cache.path(), &|_, _, _| {}).unwrap();
    check(&image);
    let count = || fs::read_dir(cache.path().join("layers")).unwrap().count();
    assert_eq!(count(), 2);
    let again = Image::open(dir.path(), cache.path(), &|_, _, _| panic!("unpacked again"));
    assert_eq!(again.unwrap().layers(), image.layers());
    assert_eq!(count(), 2);
}

#[test]
fn a_layout_in_a_tar_file_works_alike() {
    let dir = tempfile::tempdir().unwrap();
    let cache = tempfile::tempdir().unwrap();
    layout(&dir.path().join("image"), &two_layers(), None);
    let path = dir.path().join("image.tar");
    let mut tar = tar::Builder::new(File::create(&path).unwrap());
    tar.append_dir_all(".", dir.path().join("image")).unwrap();
    tar.finish().unwrap();
    check(&Image::open(&path, cache.path(), &|_, _, _| {}).unwrap());
}

#[test]
fn a_docker_archive_works_alike() {
    let dir = tempfile::tempdir().unwrap();
    let cache = tempfile::tempdir().unwrap();
    let layers = two_layers();
    let manifest = json!([{ "Config": "c.json", "Layers": ["1/layer.tar", "2/layer.tar"] }]);
    fs::write(dir.path().join("manifest.json"), manifest.to_string()).unwrap();
    fs::write(dir.path().join("c.json"), config(&layers)).unwrap();
    for (folder, layer) in ["1", "2"].iter().zip(&layers) {
        fs::create_dir(dir.path().join(folder)).unwrap();
        fs::write(dir.path().join(folder).join("layer.tar"), layer).unwrap();
    }
    let path = dir.path().join("saved.tar");
    let mut tar = tar::Builder::new(File::create(&path).unwrap());
    for name in ["manifest.json", "c.json", "1/layer.tar", "2/layer.tar"] {
        tar.append_path_with_name(dir.path().join(name), name).unwrap();
    }
    tar.finish().unwrap();
    check(&Image::open(&path, cache.path(), &|_, _, _| {}).unwrap());
}

#[test]
fn a_damaged_layer_is_refused_and_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let cache = tempfile::tempdir().unwrap();
    let layers = two_layers();
    layout(dir.path(), &layers, None);
    let blob = dir.path().join("blobs/sha256").join(&sha(&gzip(&layers[1]))["sha256:".len()..]);
    fs::write(blob, gzip(&layer("b", "forged"))).unwrap();
    let error = Image::open(dir.path(), cache.path(), &|_, _, _| {}).unwrap_err();
    assert!(format!("{error:#}").contains("damaged"), "{error:#}");
    assert_eq!(fs::read_dir(cache.path().join("layers")).unwrap().count(), 1);
}

#[test]
fn an_image_for_another_machine_names_what_it_is_for() {
    let dir = tempfile::tempdir().unwrap();
    let platform = json!({ "os": "plan9", "architecture": "mips" });
    layout(dir.path(), &two_layers(), Some(platform));
    let error = Image::open(dir.path(), dir.path(), &|_, _, _| {}).unwrap_err();
    assert!(format!("{error:#}").contains("plan9/mips"), "{error:#}");
}
