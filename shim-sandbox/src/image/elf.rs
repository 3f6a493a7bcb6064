//! The little of ELF that an image needs: sections of modules, notes of kernels, and whether a program
//! needs a loader.

use shim_core::{Error, Result};

/// Program headers: what a loader is named by, and notes.
const PT_INTERP: u32 = 3;
const PT_NOTE: u32 = 4;

/// A 64-bit little-endian ELF file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Elf<'a>(&'a [u8]);

impl<'a> Elf<'a> {
    /// # Errors
    /// When it is no such file.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self> {
        if !bytes.starts_with(b"\x7fELF\x02\x01") {
            return Err(Error::invalid("no 64-bit little-endian ELF file"));
        }
        Ok(Self(bytes))
    }

    /// Whether the kernel would run it by a dynamic loader.
    pub(super) fn needs_loader(&self) -> bool {
        self.programs().any(|(kind, _)| kind == PT_INTERP)
    }

    /// Whether a machine can start it without firmware's help: it has the note of PVH.
    pub(super) fn has_pvh_entry(&self) -> bool {
        // XEN_ELFNOTE_PHYS32_ENTRY, of the owner "Xen".
        let note = [&4_u32.to_le_bytes()[..], &[0; 4], &18_u32.to_le_bytes(), b"Xen\0"].concat();
        self.programs().filter(|(kind, _)| *kind == PT_NOTE).any(|(_, notes)| {
            // The size in its middle is of the address: four or eight bytes.
            notes.windows(16).any(|at| at[..4] == note[..4] && at[8..] == note[8..])
        })
    }

    /// The bytes of a section.
    pub(super) fn section(&self, name: &str) -> Option<&'a [u8]> {
        let header = |n: usize| {
            let size = self.number::<2>(58)?;
            self.number::<8>(40)?.checked_add(n.checked_mul(size)?)
        };
        let bytes = |header: usize| {
            let (start, length) = (self.number::<8>(header + 24)?, self.number::<8>(header + 32)?);
            self.0.get(start..start.checked_add(length)?)
        };
        let names = bytes(header(self.number::<2>(62)?)?)?;
        (0..self.number::<2>(60)?).find_map(|n| {
            let at = header(n)?;
            let named = names.get(self.number::<4>(at)?..)?;
            named.strip_prefix(name.as_bytes())?.starts_with(b"\0").then(|| bytes(at))?
        })
    }

    /// The kind and the bytes of each segment.
    fn programs(&self) -> impl Iterator<Item = (u32, &'a [u8])> {
        let count = self.number::<2>(56).unwrap_or(0);
        (0..count).filter_map(move |n| {
            let at = self.number::<8>(32)?.checked_add(n.checked_mul(self.number::<2>(54)?)?)?;
            let (start, length) = (self.number::<8>(at + 8)?, self.number::<8>(at + 32)?);
            let bytes = self.0.get(start..start.checked_add(length)?)?;
            Some((u32::try_from(self.number::<4>(at)?).ok()?, bytes))
        })
    }

    /// The number of so many bytes at an offset.
    fn number<const BYTES: usize>(&self, at: usize) -> Option<usize> {
        let bytes = self.0.get(at..at.checked_add(BYTES)?)?;
        let number = bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
        usize::try_from(number).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_test_is_a_program_with_sections() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        let elf = Elf::parse(&own).unwrap();
        assert_eq!(elf.needs_loader(), elf.section(".interp").is_some());
        assert!(elf.section(".text").is_some_and(|text| text.len() > 1000));
        assert!(elf.section(".nothing").is_none());
        assert!(!elf.has_pvh_entry());
    }

    #[test]
    fn damaged_files_have_nothing_in_them() {
        assert!(Elf::parse(b"#!/bin/sh").is_err());
        let own = std::fs::read("/proc/self/exe").unwrap();
        for length in [6, 63, 64, 100, 500] {
            let cut = Elf::parse(&own[..length]).unwrap();
            assert!(cut.section(".text").is_none());
            assert!(!cut.has_pvh_entry());
        }
        let wild = [&b"\x7fELF\x02\x01"[..], &[0xff; 500]].concat();
        assert!(Elf::parse(&wild).unwrap().section(".text").is_none());
    }
}
