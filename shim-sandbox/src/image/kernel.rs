//! A kernel's file: its release, and the form of it that boots fastest.

use shim_core::{Context, Error, Result};

use super::{decompress::decompress, elf::Elf};

/// Where Linux's boot protocol has the signature, "HdrS".
const SIGNATURE: usize = 0x202;

/// A kernel's file, as packages have it: packed for firmware, or plain.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kernel<'a> {
    bytes: &'a [u8],
    is_packed: bool,
}

impl<'a> Kernel<'a> {
    /// # Errors
    /// When it is no kernel for x86-64.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self> {
        let is_packed = bytes.get(SIGNATURE..).is_some_and(|rest| rest.starts_with(b"HdrS"));
        if !is_packed {
            Elf::parse(bytes).context("neither a bzImage nor a vmlinux")?;
        }
        Ok(Self { bytes, is_packed })
    }

    /// The file as it is.
    pub(super) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// What `uname -r` will say.
    ///
    /// # Errors
    /// When the file does not tell.
    pub(super) fn release(&self) -> Result<String> {
        let text = if self.is_packed { self.told_version() } else { self.banner() };
        let release = text.and_then(|text| text.split(|byte| *byte == b' ').next());
        let release = release.and_then(|text| std::str::from_utf8(text).ok());
        let is_release = |text: &&str| !text.is_empty() && text.len() <= 64 && !text.contains('/');
        let release = release.filter(is_release);
        Ok(release
            .ok_or_else(|| Error::invalid("the kernel does not tell its release"))?
            .to_owned())
    }

    /// The unpacked kernel if the machine can start that at once: firmware and the kernel's own
    /// unpacking are a good part of a boot. Else nothing.
    ///
    /// # Errors
    /// When it cannot be unpacked.
    pub(super) fn unpacked(&self) -> Result<Option<Vec<u8>>> {
        let plain = if self.is_packed {
            let (start, length) = self.payload().ok_or_else(|| Error::invalid("no payload"))?;
            let end = start.checked_add(length).ok_or_else(|| Error::invalid("no payload"))?;
            let payload = self.bytes.get(start..end).ok_or_else(|| Error::invalid("cut short"))?;
            decompress(payload).context("unpack the kernel")?.into_owned()
        } else {
            self.bytes.to_vec()
        };
        let starts = Elf::parse(&plain).is_ok_and(|elf| elf.has_pvh_entry());
        Ok(starts.then_some(plain))
    }

    /// The boot protocol's `payload_offset` and `payload_length`: the first counts from the end of the
    /// setup's sectors.
    fn payload(&self) -> Option<(usize, usize)> {
        let setup = usize::from(*self.bytes.get(0x1f1)?);
        let offset = self.word(0x248)?;
        Some((offset.checked_add((setup + 1) * 512)?, self.word(0x24c)?))
    }

    /// The text that `kernel_version` of the boot protocol points at.
    fn told_version(&self) -> Option<&'a [u8]> {
        let pointer = self.bytes.get(0x20e..0x210)?;
        let at = usize::from(u16::from_le_bytes(pointer.try_into().ok()?)) + 0x200;
        self.bytes.get(at..at + 128)
    }

    /// What follows the first words of `/proc/version`.
    fn banner(&self) -> Option<&'a [u8]> {
        const START: &[u8] = b"Linux version ";
        let starts = self.bytes.windows(START.len() + 1);
        let at = starts.enumerate().find(|(_, text)| {
            // Formats have it with a percent sign.
            text.starts_with(START) && text.last().is_some_and(u8::is_ascii_digit)
        });
        self.bytes.get(at?.0 + START.len()..)
    }

    fn word(&self, at: usize) -> Option<usize> {
        let word = self.bytes.get(at..at + 4)?;
        usize::try_from(u32::from_le_bytes(word.try_into().ok()?)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packed_kernel_tells_its_release_and_damage_is_an_error() {
        let mut bytes = vec![0; 4096];
        bytes[SIGNATURE..SIGNATURE + 4].copy_from_slice(b"HdrS");
        bytes[0x20e..0x210].copy_from_slice(&0x600_u16.to_le_bytes());
        bytes[0x800..0x80d].copy_from_slice(b"6.1.0-9 (a@b)");
        let kernel = Kernel::parse(&bytes).unwrap();
        assert_eq!(kernel.release().unwrap(), "6.1.0-9");
        // Nothing is behind its payload.
        assert!(kernel.unpacked().unwrap().is_none());
        bytes[0x24c..0x250].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(Kernel::parse(&bytes).unwrap().unpacked().is_err());
        assert!(Kernel::parse(b"#!/bin/sh").is_err());
    }
}
