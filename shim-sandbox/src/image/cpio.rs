//! The archive that a kernel unpacks into its first filesystem: cpio(5), the "new ASCII" format.

/// An archive in the making.
#[derive(Debug, Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    files: u32,
}

impl Archive {
    /// Adds a folder; those above it come first.
    pub(super) fn folder(&mut self, name: &str) {
        self.entry(name, 0o040_755, &[]);
    }

    /// Adds a program that anybody may run.
    pub(super) fn program(&mut self, name: &str, bytes: &[u8]) {
        self.entry(name, 0o100_755, bytes);
    }

    /// Adds a file that anybody may read.
    pub(super) fn file(&mut self, name: &str, bytes: &[u8]) {
        self.entry(name, 0o100_644, bytes);
    }

    /// The whole archive.
    pub(super) fn end(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, bytes: &[u8]) {
        self.files += 1;
        let name_size = name.len() + 1;
        let (inode, size) = (self.files, bytes.len());
        // Inode, mode, owner, group, links, time, size, device, device it is, name's size, sum. Without
        // a time and an owner the same inputs make the same archive.
        let head = format!(
            "070701{inode:08x}{mode:08x}{0:08x}{0:08x}{1:08x}{0:08x}{size:08x}{0:08x}{0:08x}{0:08x}{0:08x}{name_size:08x}{0:08x}",
            0, 1
        );
        self.bytes.extend(head.bytes().chain(name.bytes()).chain([0]));
        self.pad();
        self.bytes.extend(bytes);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_a_head_of_numbers_and_padded_parts() {
        let mut archive = Archive::default();
        archive.folder("d");
        archive.program("d/run", b"12345");
        let bytes = archive.end();
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.starts_with("07070100000001000041ed0000000000000000000000010000000000000000"));
        // Thirteen numbers of eight digits follow the magic; the name ends at a multiple of four.
        assert_eq!(&text[110..112], "d\0");
        let program = &text[112..];
        assert!(program.starts_with("07070100000002000081ed"));
        assert_eq!(&program[54..62], "00000005");
        assert_eq!(&program[110..124], "d/run\x0012345\0\0\0");
    }
}
