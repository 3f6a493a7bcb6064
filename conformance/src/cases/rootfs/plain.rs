//! Mounts as every containerd sends them: each is one call of the kernel's.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context, Result, bail, ensure};
use shim_client::{BindMount, Generation, Reason, SpecBuilder, mounts_below};
use shim_protos::types::Mount;
use ttrpc::Code;

use crate::case::group;
use crate::expect::{code, refused};
use crate::lab::{Ask, Guest, Io, Lab};

group! { "rootfs":
    Must bind_mount: "A bind mount MUST become the container's root.";
    Must bind_mount_that_is_read_only: "A read-only bind mount MUST NOT be writable in the container.";
    Must overlay_is_writable: "An overlay MUST show its layers, and take writes in its upper one.";
    Must overlay_of_many_layers: "An overlay whose options exceed a page MUST be mounted: images have many layers.";
    Must several_mounts: "Mounts MUST be done in their order, each at its target.", since(Generation::V1_7);
    Must target_stays_below: "A target with `..` or a link in it MUST NOT lead out of the rootfs.", since(Generation::V1_7);
    Must unknown_type_is_refused: "A mount of a type that there is not MUST be refused, and leave nothing.";
    Should error_names_the_mount: "The error about a mount SHOULD name it: users see that text.";
    Must missing_source_is_refused: "A mount without its source MUST be refused, and leave nothing.";
    Must half_done_is_undone: "When a later mount fails, the earlier ones MUST be undone.";
    Must unmounted_by_delete: "Delete MUST unmount the rootfs.";
    Must no_mounts_at_all: "Without mounts, the bundle's rootfs MUST be the root as it is.";
    Must mounted_for_containerd: "The rootfs MUST be mounted when Create has answered, for containerd to find it.";
}

/// Folders of the host's by which a container without a root of its own can execute something.
const FOLDERS: [&str; 5] = ["/bin", "/sbin", "/lib", "/lib64", "/usr"];

/// Makes the skeleton of a root in that folder.
fn skeleton(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    for name in ["proc", "dev", "sys", "run", "mnt", "etc", "tmp"] {
        fs::create_dir_all(folder.join(name))?;
    }
    for path in FOLDERS.map(Path::new) {
        let here = folder.join(path.strip_prefix("/")?);
        if let Ok(target) = fs::read_link(path) {
            symlink(target, here)?;
        } else if path.exists() {
            fs::create_dir_all(here)?;
        }
    }
    Ok(())
}

/// Shows the host's programs to a container.
fn with_programs(spec: SpecBuilder) -> SpecBuilder {
    let real = |path: &&Path| path.is_dir() && !path.is_symlink();
    FOLDERS.map(Path::new).iter().copied().filter(real).fold(spec, |spec, path| {
        let (source, destination) = (path.to_owned(), path.to_owned());
        spec.mount(&BindMount { source, destination, read_only: true })
    })
}

pub(super) fn mount(kind: &str, source: &str, target: &str, options: &[&str]) -> Mount {
    Mount {
        type_: kind.to_owned(),
        source: source.to_owned(),
        target: target.to_owned(),
        options: options.iter().map(ToString::to_string).collect(),
        ..Mount::default()
    }
}

/// A shim for a container that executes this script in a root with the host's programs.
pub(super) async fn prepared(lab: &Lab, script: &str) -> Result<Rc<Guest>> {
    lab.prepare(Ask::sh(script).spec_with(with_programs).io(Io::Pipes)).await
}

/// Create with these mounts, and the rest of a life that ends with that code.
pub(super) async fn live(guest: &Guest, rootfs: Vec<Mount>, expected: u32) -> Result<()> {
    guest.create_with(|request| request.rootfs = rootfs).await?;
    guest.start("").await?;
    let status = guest.wait("").await?.exit_status;
    guest.delete("").await?;
    let (out, err) = (guest.stdout.text(), guest.stderr.text());
    ensure!(status == expected, "exit status {status}, expected {expected}; it says {out}{err}");
    Ok(())
}

pub(super) fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path in UTF-8")
}

/// A root in the lab's folder, with a file in it.
pub(super) fn own_root(lab: &Lab) -> Result<PathBuf> {
    let folder = lab.folder.join("own-root");
    skeleton(&folder)?;
    fs::write(folder.join("mark"), "here")?;
    Ok(folder)
}

async fn bind_mount(lab: &Lab) -> Result<()> {
    let root = own_root(lab)?;
    let guest = prepared(lab, "test -e /mark && echo written > /new").await?;
    live(&guest, vec![mount("bind", text(&root)?, "", &["rbind", "rw"])], 0).await?;
    ensure!(root.join("new").exists(), "what the container writes does not arrive");
    Ok(())
}

async fn bind_mount_that_is_read_only(lab: &Lab) -> Result<()> {
    let root = own_root(lab)?;
    let script = "test -e /mark || exit 7; (echo written > /new) 2> /dev/null && exit 8; exit 0";
    let guest = prepared(lab, script).await?;
    live(&guest, vec![mount("bind", text(&root)?, "", &["rbind", "ro"])], 0).await?;
    ensure!(!root.join("new").exists(), "the container has written to it");
    Ok(())
}

/// An overlay over layers, the uppermost first, and its upper folder.
fn overlay(lab: &Lab, layers: &[PathBuf]) -> Result<(Mount, PathBuf)> {
    let (upper, work) = (lab.folder.join("upper"), lab.folder.join("workdir"));
    fs::create_dir_all(&upper)?;
    fs::create_dir_all(&work)?;
    let lower: Vec<&str> = layers.iter().map(|path| text(path)).collect::<Result<_>>()?;
    let options = [
        format!("workdir={}", text(&work)?),
        format!("upperdir={}", text(&upper)?),
        format!("lowerdir={}", lower.join(":")),
    ];
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    Ok((mount("overlay", "overlay", "", &options), upper))
}

async fn overlay_is_writable(lab: &Lab) -> Result<()> {
    let root = own_root(lab)?;
    let (rootfs, upper) = overlay(lab, std::slice::from_ref(&root))?;
    let guest = prepared(lab, "test -e /mark && echo written > /new").await?;
    live(&guest, vec![rootfs], 0).await?;
    ensure!(upper.join("new").exists(), "what the container writes is not in the upper folder");
    ensure!(!root.join("new").exists(), "what the container writes is in the lower folder");
    Ok(())
}

async fn overlay_of_many_layers(lab: &Lab) -> Result<()> {
    /// Names as long as those of a snapshotter; together they exceed the kernel's page.
    const LAYERS: usize = 60;
    let store = lab.folder.join("io.containerd.snapshotter.v1.overlayfs").join("snapshots");
    let mut layers = Vec::new();
    for number in 0..LAYERS {
        let layer = store.join(number.to_string()).join("fs");
        fs::create_dir_all(&layer)?;
        fs::write(layer.join(format!("mark-{number}")), "here")?;
        layers.push(layer);
    }
    skeleton(&layers[LAYERS - 1])?;
    let (rootfs, _) = overlay(lab, &layers)?;
    let length: usize = rootfs.options.iter().map(String::len).sum();
    ensure!(length > 4096, "the options have {length} bytes, which is no test");
    let script = format!("set -- /mark-*; test $# = {LAYERS} && echo written > /new");
    let guest = prepared(lab, &script).await?;
    live(&guest, vec![rootfs], 0).await
}

async fn several_mounts(lab: &Lab) -> Result<()> {
    let root = own_root(lab)?;
    let inner = lab.folder.join("inner");
    fs::create_dir_all(inner.join("deeper"))?;
    let guest =
        prepared(lab, "test -e /mark && test -e /mnt/deeper && test -e /tmp/deeper").await?;
    let rootfs = vec![
        mount("bind", text(&root)?, "", &["rbind", "rw"]),
        mount("bind", text(&inner)?, "mnt", &["rbind", "rw"]),
        mount("bind", text(&inner)?, "/tmp", &["rbind", "ro"]),
    ];
    live(&guest, rootfs, 0).await
}

async fn target_stays_below(lab: &Lab) -> Result<()> {
    let root = own_root(lab)?;
    let outside = lab.folder.join("outside");
    fs::create_dir_all(&outside)?;
    symlink(&outside, root.join("link"))?;
    symlink("../../../../../../../../..", root.join("up"))?;
    let tricks = ["../../outside".to_owned(), "link".to_owned(), format!("up{}", text(&outside)?)];
    for target in tricks {
        let guest = prepared(lab, "true").await?;
        let rootfs = vec![
            mount("bind", text(&root)?, "", &["rbind", "rw"]),
            mount("tmpfs", "tmpfs", &target, &[]),
        ];
        // A refusal is as good as a mount below.
        let created = guest.create_with(|request| request.rootfs = rootfs).await;
        let strays = mounts_below(&outside)?;
        ensure!(strays.is_empty(), "the target {target:?} leads to {strays:?}");
        if created.is_ok() {
            guest.start("").await?;
            guest.expect_exit("", 0).await?;
            guest.delete("").await?;
        }
    }
    Ok(())
}

/// Create with these mounts has to be refused, and nothing to stay.
pub(super) async fn expect_refusal(guest: &Guest, rootfs: Vec<Mount>) -> Result<()> {
    refused(guest.create_with(|request| request.rootfs = rootfs).await)?;
    let mounts = guest.mounts()?;
    ensure!(mounts.is_empty(), "the refused Create leaves mounts: {mounts:?}");
    code(guest.state("").await, Code::NOT_FOUND)?;
    code(guest.delete("").await, Code::NOT_FOUND)
}

const NO_TYPE: &str = "nosuchfs";

async fn unknown_type_is_refused(lab: &Lab) -> Result<()> {
    let guest = prepared(lab, "true").await?;
    expect_refusal(&guest, vec![mount(NO_TYPE, "none", "", &[])]).await
}

async fn error_names_the_mount(lab: &Lab) -> Result<()> {
    let guest = prepared(lab, "true").await?;
    let rootfs = vec![mount(NO_TYPE, "none", "", &[])];
    match guest.create_with(|request| request.rootfs = rootfs).await {
        Ok(_) => bail!("a mount of the type {NO_TYPE} succeeds"),
        Err(error) => match &error.reason {
            Reason::Refused { message, .. } if message.contains(NO_TYPE) => Ok(()),
            _ => bail!("the error does not name {NO_TYPE}: {error}"),
        },
    }
}

async fn missing_source_is_refused(lab: &Lab) -> Result<()> {
    let guest = prepared(lab, "true").await?;
    let nowhere = lab.folder.join("nowhere");
    expect_refusal(&guest, vec![mount("bind", text(&nowhere)?, "", &["rbind", "rw"])]).await
}

async fn half_done_is_undone(lab: &Lab) -> Result<()> {
    let root = own_root(lab)?;
    let guest = prepared(lab, "true").await?;
    let rootfs = vec![
        mount("bind", text(&root)?, "", &["rbind", "rw"]),
        mount("bind", text(&root)?, "", &["rbind", "rw"]),
        mount(NO_TYPE, "none", "", &[]),
    ];
    expect_refusal(&guest, rootfs).await
}

async fn unmounted_by_delete(lab: &Lab) -> Result<()> {
    let guest = lab.running(&["true"]).await?;
    guest.wait("").await?;
    let mounts = guest.mounts()?;
    ensure!(!mounts.is_empty(), "the rootfs is not mounted before Delete");
    guest.delete("").await?;
    let mounts = guest.mounts()?;
    ensure!(mounts.is_empty(), "Delete leaves mounts: {mounts:?}");
    Ok(())
}

async fn no_mounts_at_all(lab: &Lab) -> Result<()> {
    let guest = prepared(lab, "test -e /mark && echo written > /new").await?;
    let root = guest.shim.bundle().rootfs();
    skeleton(&root)?;
    fs::write(root.join("mark"), "here")?;
    live(&guest, Vec::new(), 0).await?;
    ensure!(root.join("mark").exists(), "Delete has removed what was in the rootfs");
    ensure!(root.join("new").exists(), "what the container writes is not in the rootfs");
    Ok(())
}

async fn mounted_for_containerd(lab: &Lab) -> Result<()> {
    let root = own_root(lab)?;
    let guest = prepared(lab, "true").await?;
    let rootfs = vec![mount("bind", text(&root)?, "", &["rbind", "rw"])];
    guest.create_with(|request| request.rootfs = rootfs).await?;
    let place = guest.shim.bundle().rootfs();
    ensure!(place.join("mark").exists(), "nothing is mounted at {}", place.display());
    guest.start("").await?;
    guest.expect_exit("", 0).await
}
