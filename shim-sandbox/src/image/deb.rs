//! Kernels of Debian's packages, without installing them: an `ar` archive with a compressed `tar` in it.

use std::{
    fs,
    path::{Component, Path},
};

use shim_core::{Context, Error, Result};

use super::decompress::reader;

/// Unpacks what an image needs of a package: kernels and modules.
///
/// # Errors
/// When it is no package, or one of the folder's files cannot be written.
pub(super) fn unpack(package: &Path, into: &Path) -> Result<()> {
    let named = || format!("package {}", package.display());
    let bytes = fs::read(package).with_context(|| format!("read {}", package.display()))?;
    let data = data(&bytes).with_context(named)?;
    let mut archive = tar::Archive::new(reader(data).with_context(named)?);
    for entry in archive.entries().with_context(named)? {
        let mut entry = entry.with_context(named)?;
        let path = entry.path().with_context(named)?.into_owned();
        let is_file = entry.header().entry_type().is_file();
        if is_file && is_of_kernel(&path) {
            entry.unpack_in(into).with_context(|| format!("unpack {}", path.display()))?;
        }
    }
    Ok(())
}

/// Whether a path is below one of the folders that kernels and their modules are in.
fn is_of_kernel(path: &Path) -> bool {
    let mut parts = path.components().filter(|part| !matches!(part, Component::CurDir));
    let first = parts.next().filter(|part| *part != Component::Normal("usr".as_ref()));
    let names = first.or_else(|| parts.next()).into_iter().chain(parts.next());
    let names: Vec<_> = names.map(|part| part.as_os_str().to_string_lossy()).collect();
    match names.as_slice() {
        [boot, kernel] if boot == "boot" => kernel.starts_with("vmlinu"),
        [lib, modules] => lib == "lib" && modules == "modules",
        _ => false,
    }
}

/// The member of a package that has its files.
fn data(bytes: &[u8]) -> Result<&[u8]> {
    const MAGIC: &[u8] = b"!<arch>\n";
    let no_package = || Error::invalid("no Debian package");
    let mut rest = bytes.strip_prefix(MAGIC).ok_or_else(no_package)?;
    while let Some((head, behind)) = rest.split_first_chunk::<60>() {
        // Name, time, owner, group, mode, size: columns of text.
        let (name, size) = (&head[..16], std::str::from_utf8(&head[48..58]));
        let size = size.ok().and_then(|size| size.trim().parse::<usize>().ok());
        let size = size.ok_or_else(no_package)?;
        let member = behind.get(..size).ok_or_else(|| Error::invalid("cut short"))?;
        if name.starts_with(b"data.tar") {
            return Ok(member);
        }
        rest = behind.get(size.next_multiple_of(2)..).unwrap_or_default();
    }
    Err(Error::invalid("a package without files"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(files: &[(&str, &str)]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, text) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, text.as_bytes()).unwrap();
        }
        let data = tar.into_inner().unwrap();
        let member = |name: &str, size: usize| format!("{name:<16}{0:<32}{size:<10}`\n", 0);
        let first = member("debian-binary", 3);
        let second = member("data.tar", data.len());
        [b"!<arch>\n", first.as_bytes(), b"2.0\n", second.as_bytes(), &data].concat()
    }

    #[test]
    fn kernels_and_modules_are_unpacked_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let deb = dir.path().join("a.deb");
        let files = [
            ("./boot/vmlinuz-1", "kernel"),
            ("./usr/lib/modules/1/modules.builtin", "list"),
            ("./usr/share/doc/readme", "words"),
        ];
        fs::write(&deb, package(&files)).unwrap();
        unpack(&deb, dir.path()).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("boot/vmlinuz-1")).unwrap(), "kernel");
        assert!(dir.path().join("usr/lib/modules/1/modules.builtin").exists());
        assert!(!dir.path().join("usr/share").exists());
    }

    #[test]
    fn what_is_no_package_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let deb = dir.path().join("a.deb");
        fs::write(&deb, "text").unwrap();
        let err = format!("{:#}", unpack(&deb, dir.path()).unwrap_err());
        assert!(err.ends_with("a.deb: no Debian package"), "{err}");
        assert!(data(b"!<arch>\n").is_err());
    }
}
