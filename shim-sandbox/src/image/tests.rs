//! Images of kernels that are none.

use super::*;

/// A folder with a kernel and modules that parse, and a program that needs no loader.
fn inputs_in(dir: &Path) -> (Source, PathBuf) {
    let mut kernel = vec![0; 4096];
    kernel[0x202..0x206].copy_from_slice(b"HdrS");
    kernel[0x20e..0x210].copy_from_slice(&0x600_u16.to_le_bytes());
    kernel[0x800..0x804].copy_from_slice(b"9.9 ");
    fs::write(dir.join("vmlinuz"), kernel).unwrap();
    let modules = dir.join("9.9");
    fs::create_dir_all(modules.join("kernel")).unwrap();
    let builtin = "virtio_pci.ko\nvirtio_console.ko\nvirtiofs.ko\nvirtio_blk.ko\nvirtio_net.ko\n";
    fs::write(modules.join("modules.builtin"), builtin).unwrap();
    fs::write(modules.join("kernel/overlay.ko"), static_elf()).unwrap();
    fs::write(dir.join("program"), static_elf()).unwrap();
    (Source::Files { kernel: dir.join("vmlinuz"), modules }, dir.join("program"))
}

fn static_elf() -> Vec<u8> {
    [&b"\x7fELF\x02\x01"[..], &[0; 100]].concat()
}

#[test]
fn an_image_is_built_once_and_anew_when_the_program_is_another() {
    let dir = tempfile::tempdir().unwrap();
    let (source, program) = inputs_in(dir.path());
    let folder = dir.path().join("state/image");
    let first = Image::build(&source, &program, &folder).unwrap();
    assert_eq!(first.about.release, "9.9");
    assert_eq!(first.about.modules, ["overlay"]);
    let written = fs::metadata(first.initrd()).unwrap().modified().unwrap();
    let same = Image::build(&source, &program, &folder).unwrap();
    assert_eq!(same, first);
    assert_eq!(fs::metadata(first.initrd()).unwrap().modified().unwrap(), written);
    fs::write(&program, [static_elf(), b"more".to_vec()].concat()).unwrap();
    let other = Image::build(&source, &program, &folder).unwrap();
    assert_ne!(other.about.inputs, first.about.inputs);
    assert_eq!(Image::open(&folder).unwrap(), other);
    let left: Vec<_> = fs::read_dir(dir.path().join("state")).unwrap().flatten().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn a_program_that_needs_libraries_is_refused_and_leaves_the_image() {
    let dir = tempfile::tempdir().unwrap();
    let (source, program) = inputs_in(dir.path());
    let folder = dir.path().join("image");
    let first = Image::build(&source, &program, &folder).unwrap();
    let err = Image::build(&source, Path::new("/proc/self/exe"), &folder).unwrap_err();
    assert!(err.to_string().contains("cargo xtask build"), "{err:#}");
    assert_eq!(Image::open(&folder).unwrap(), first);
}

#[test]
fn no_image_says_how_to_make_one() {
    let dir = tempfile::tempdir().unwrap();
    let err = Image::open(&dir.path().join("none")).unwrap_err();
    assert_eq!(err.kind(), shim_core::Kind::NotFound);
    assert!(err.to_string().contains("image build"), "{err}");
}
