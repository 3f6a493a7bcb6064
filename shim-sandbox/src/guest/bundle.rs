//! Bundles: what the host has for a container, laid out for the engine.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Component, Path, PathBuf},
};

use shim_core::{Context, Error, Kind, Result, model::ContainerId};
use shim_protos::guest::{MakeBundleRequest, MakeBundleResponse, make_bundle_request::Rootfs};

use super::places::Places;

/// Where the kernel lists block devices.
const BLOCK: &str = "/sys/block";

/// Makes a bundle, and finds what its root filesystem is to be mounted from.
pub(super) fn make(places: &Places, request: &MakeBundleRequest) -> Result<MakeBundleResponse> {
    let id = ContainerId::parse(&request.id)?;
    let source = match &request.rootfs {
        Some(Rootfs::Shared(path)) => Some(shared(&places.share(), path)?),
        Some(Rootfs::Disk(disk)) => Some(device(Path::new(BLOCK), &disk.serial)?),
        None => None,
        Some(_) => return Err(Error::invalid("a root filesystem of an unknown kind")),
    };
    let path = places.bundle(&id);
    let made = fs::DirBuilder::new().mode(0o711).create(&path).map_err(|err| {
        let kind = match err.kind() {
            io::ErrorKind::AlreadyExists => Kind::AlreadyExists,
            _ => Kind::Other,
        };
        Error::from(err).with_kind(kind).context(format!("make {}", path.display()))
    });
    made?;
    let laid = fs::write(path.join("config.json"), &request.spec)
        .and_then(|()| fs::create_dir(path.join("rootfs")))
        .with_context(|| format!("fill {}", path.display()));
    if let Err(err) = laid {
        let _nothing_worse = fs::remove_dir_all(&path);
        return Err(err);
    }
    let text = |path: &Path| path.display().to_string();
    Ok(MakeBundleResponse {
        path: text(&path),
        source: source.as_deref().map(text).unwrap_or_default(),
        ..Default::default()
    })
}

/// Removes a bundle; that there is none is fine.
pub(super) fn remove(places: &Places, id: &str) -> Result<()> {
    let path = places.bundle(&ContainerId::parse(id)?);
    // Never recursive: what is still mounted there is the container's.
    for file in fs::read_dir(&path).into_iter().flatten().flatten() {
        let Ok(kind) = file.file_type() else { continue };
        if !kind.is_dir() {
            let removed = fs::remove_file(file.path());
            removed.with_context(|| format!("remove {}", file.path().display()))?;
        }
    }
    for directory in [path.join("rootfs"), path] {
        match fs::remove_dir(&directory) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => {}
            removed => removed.with_context(|| format!("remove {}", directory.display()))?,
        }
    }
    Ok(())
}

/// A folder of the share. The host says which, but a container may have put a link on the way.
fn shared(share: &Path, path: &str) -> Result<PathBuf> {
    let asked = Path::new(path);
    let is_plain = asked.components().all(|part| matches!(part, Component::Normal(_)));
    if path.is_empty() || !is_plain {
        return Err(Error::invalid(format!("{path:?} is no path in the share")));
    }
    let resolve = |path: &Path| {
        path.canonicalize().with_context(|| format!("find {} in the share", path.display()))
    };
    let (share, found) = (resolve(share)?, resolve(&share.join(asked))?);
    if !found.starts_with(&share) || found == share || !found.is_dir() {
        return Err(Error::invalid(format!("{path:?} is no folder of the share")));
    }
    Ok(found)
}

/// The disk of a serial number.
fn device(block: &Path, serial: &str) -> Result<PathBuf> {
    if serial.is_empty() {
        return Err(Error::invalid("a disk needs a serial number"));
    }
    let disks = fs::read_dir(block).with_context(|| format!("read {}", block.display()))?;
    for disk in disks.flatten() {
        let found = fs::read_to_string(disk.path().join("serial"));
        if found.is_ok_and(|found| found.trim_end() == serial) {
            return Ok(Path::new("/dev").join(disk.file_name()));
        }
    }
    Err(Error::not_found(format!("no disk has the serial number {serial:?}")))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_bundle_is_made_once_and_removed_as_often_as_one_likes() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places::below(dir.path()).unwrap();
        places.make().unwrap();
        fs::create_dir_all(places.share().join("c1/rootfs")).unwrap();
        let mut request =
            MakeBundleRequest { id: "c1".into(), spec: b"{}".to_vec(), ..Default::default() };
        request.set_shared("c1/rootfs".into());
        let made = make(&places, &request).unwrap();
        assert!(made.source.ends_with("share/c1/rootfs"), "{}", made.source);
        assert_eq!(fs::read(Path::new(&made.path).join("config.json")).unwrap(), b"{}");
        assert_eq!(make(&places, &request).unwrap_err().kind(), Kind::AlreadyExists);
        for _ in 0..2 {
            remove(&places, "c1").unwrap();
        }
        assert!(!Path::new(&made.path).exists());
        assert!(remove(&places, "../bundles").is_err());
    }

    #[test]
    fn the_share_is_not_left() {
        let dir = tempfile::tempdir().unwrap();
        let share = dir.path().join("share");
        fs::create_dir_all(share.join("c1")).unwrap();
        fs::create_dir_all(dir.path().join("outside")).unwrap();
        symlink(dir.path().join("outside"), share.join("c1/rootfs")).unwrap();
        for bad in ["", "/", "..", "../outside", "c1/../..", "c1/rootfs", "none", "."] {
            assert!(shared(&share, bad).is_err(), "{bad}");
        }
        assert!(shared(&share, "c1").is_ok());
    }

    #[test]
    fn a_disk_is_found_by_its_serial_number() {
        let dir = tempfile::tempdir().unwrap();
        for (name, serial) in [("vda", "a1\n"), ("vdb", "b2")] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("serial"), serial).unwrap();
        }
        assert_eq!(device(dir.path(), "b2").unwrap(), Path::new("/dev/vdb"));
        assert_eq!(device(dir.path(), "a1").unwrap(), Path::new("/dev/vda"));
        assert_eq!(device(dir.path(), "c3").unwrap_err().kind(), Kind::NotFound);
        assert!(device(dir.path(), "").is_err());
    }
}
