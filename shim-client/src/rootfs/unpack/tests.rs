//! Layers made on the spot; those that need devices or owners are for root alone.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use super::*;

enum Item<'a> {
    Dir(&'a str, u32),
    File(&'a str, &'a str),
    Symlink(&'a str, &'a str),
    Link(&'a str, &'a str),
}

fn layer(items: &[Item<'_>]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for item in items {
        let mut header = tar::Header::new_gnu();
        header.set_mtime(1000);
        header.set_uid(nix::unistd::geteuid().as_raw().into());
        header.set_gid(nix::unistd::getegid().as_raw().into());
        header.set_mode(0o644);
        header.set_size(0);
        let path = match item {
            Item::Dir(path, _)
            | Item::File(path, _)
            | Item::Symlink(path, _)
            | Item::Link(path, _) => *path,
        };
        // Raw, since the crate's own setter refuses the paths that an attacker would write.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        let mut body = "";
        match item {
            Item::Dir(_, mode) => {
                header.set_entry_type(EntryType::Directory);
                header.set_mode(*mode);
            }
            Item::File(_, text) => {
                body = text;
                header.set_size(text.len() as u64);
            }
            Item::Symlink(_, target) => {
                header.set_entry_type(EntryType::Symlink);
                header.set_link_name_literal(target).unwrap();
            }
            Item::Link(_, target) => {
                header.set_entry_type(EntryType::Link);
                header.set_link_name_literal(target).unwrap();
            }
        }
        header.set_cksum();
        tar.append(&header, body.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap()
}

fn unpacked(items: &[Item<'_>], below: &[PathBuf]) -> (tempfile::TempDir, Result<()>) {
    let dir = tempfile::tempdir().unwrap();
    let result = unpack(&mut layer(items).as_slice(), dir.path(), below);
    (dir, result)
}

fn root_only() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("skipped: needs root");
    }
    root
}

#[test]
fn names_have_meanings() {
    let of = |name: &'static str| meaning(OsStr::new(name));
    assert_eq!(of("a"), Meaning::File);
    assert_eq!(of(".whatever"), Meaning::File);
    assert_eq!(of(".wh.a"), Meaning::Whiteout(OsStr::new("a")));
    assert_eq!(of(".wh..wh..opq"), Meaning::Opaque);
    assert_eq!(of(".wh..wh.plnk"), Meaning::Nothing);
    assert_eq!(of(".wh."), Meaning::Nothing);
}

#[test]
fn files_links_and_directories_come_out_as_they_went_in() {
    let (dir, result) = unpacked(
        &[
            Item::Dir("./", 0o755),
            Item::Dir("d", 0o700),
            Item::File("d/f", "text"),
            Item::Link("d/g", "d/f"),
            Item::Symlink("d/s", "../somewhere"),
            Item::File("d/f2", "old"),
            Item::File("d/f2", "new"),
        ],
        &[],
    );
    result.unwrap();
    let path = |name: &str| dir.path().join(name);
    assert_eq!(fs::read_to_string(path("d/f")).unwrap(), "text");
    assert_eq!(fs::metadata(path("d/g")).unwrap().nlink(), 2);
    assert_eq!(fs::read_link(path("d/s")).unwrap(), Path::new("../somewhere"));
    assert_eq!(fs::read_to_string(path("d/f2")).unwrap(), "new");
    let folder = fs::metadata(path("d")).unwrap();
    assert_eq!((folder.mode() & 0o777, folder.mtime()), (0o700, 1000));
}

#[test]
fn no_path_leads_out() {
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().to_str().unwrap();
    // The symlink resolves inside the layer, where nothing of that name exists.
    let (dir, result) =
        unpacked(&[Item::Symlink("out", target), Item::File("out/planted", "x")], &[]);
    assert!(result.is_err() || dir.path().join(&target[1..]).exists());
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);

    let (_dir, result) = unpacked(&[Item::File("../planted", "x")], &[]);
    assert!(result.is_err());
    let (_dir, result) = unpacked(&[Item::Link("l", "../../etc/passwd")], &[]);
    assert!(result.is_err());
}

#[test]
fn a_directory_left_out_is_copied_from_below() {
    let (lower, result) = unpacked(&[Item::Dir("tmp", 0o1777)], &[]);
    result.unwrap();
    let (dir, result) =
        unpacked(&[Item::File("tmp/f", "x"), Item::File("new/f", "x")], &[lower.path().to_owned()]);
    result.unwrap();
    assert_eq!(fs::metadata(dir.path().join("tmp")).unwrap().mode() & 0o7777, 0o1777);
    assert_eq!(fs::metadata(dir.path().join("new")).unwrap().mode() & 0o7777, 0o755);
}

#[test]
fn whiteouts_become_what_overlayfs_reads() {
    if !root_only() {
        return;
    }
    let (dir, result) = unpacked(
        &[
            Item::Dir("d", 0o755),
            Item::File("d/.wh.gone", ""),
            Item::Dir("o", 0o755),
            Item::File("o/.wh..wh..opq", ""),
            Item::File("o/kept", "x"),
            Item::File(".wh..wh.aufs", ""),
        ],
        &[],
    );
    result.unwrap();
    let gone = fs::symlink_metadata(dir.path().join("d/gone")).unwrap();
    assert!(gone.file_type().is_char_device());
    assert_eq!(gone.rdev(), 0);
    let mut value = [0; 8];
    let length =
        rustix::fs::lgetxattr(dir.path().join("o"), "trusted.overlay.opaque", &mut value).unwrap();
    assert_eq!(&value[..length], b"y");
    let mut names: Vec<_> =
        fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["d", "o"]);
}

#[test]
fn a_file_is_read_inside_its_root() {
    let (dir, result) = unpacked(
        &[Item::File("real", "in"), Item::Symlink("etc", "/"), Item::Symlink("up", "../../real")],
        &[],
    );
    result.unwrap();
    assert_eq!(read_in(dir.path(), Path::new("etc/real")).as_deref(), Some("in"));
    assert_eq!(read_in(dir.path(), Path::new("up")).as_deref(), Some("in"));
    assert_eq!(read_in(dir.path(), Path::new("none")), None);
}
