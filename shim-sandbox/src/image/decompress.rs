//! Compressed bytes, in whatever of the ways that kernels, modules and packages come in.

use std::{
    borrow::Cow,
    io::{self, Read},
};

use shim_core::{Context, Error, Result};

/// More than any kernel, module or package has.
const LIMIT: u64 = 2 << 30;

/// What a block of the kernel's lz4 has at most when it is decompressed.
const LZ4_BLOCK: usize = 8 << 20;

/// How bytes are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Gzip,
    Lz4,
    Xz,
    Zstd,
}

impl Way {
    fn of(bytes: &[u8]) -> Option<Self> {
        const MAGIC: [(&[u8], Way); 4] = [
            (b"\x1f\x8b\x08", Way::Gzip),
            // The older format, which has no sums: what the kernel's own tool makes.
            (b"\x02\x21\x4c\x18", Way::Lz4),
            (b"\xfd7zXZ\x00", Way::Xz),
            (b"\x28\xb5\x2f\xfd", Way::Zstd),
        ];
        MAGIC.into_iter().find(|(magic, _)| bytes.starts_with(magic)).map(|(_, way)| way)
    }
}

/// The bytes behind compressed ones, which may be followed by others; those that are not compressed as
/// they are.
///
/// # Errors
/// When they are damaged.
pub(super) fn decompress(bytes: &[u8]) -> Result<Cow<'_, [u8]>> {
    let Some(way) = Way::of(bytes) else { return Ok(Cow::Borrowed(bytes)) };
    let mut out = Vec::new();
    if way == Way::Lz4 {
        lz4(bytes, &mut out)?;
    } else {
        let read = reader(bytes)?.take(LIMIT).read_to_end(&mut out);
        read.with_context(|| format!("decompress {way:?}"))?;
    }
    Ok(Cow::Owned(out))
}

/// Reads what is behind compressed bytes piece by piece; those that are not compressed as they are.
///
/// # Errors
/// When the way is one that comes in whole blocks only, or the head is damaged.
pub(super) fn reader<'a>(bytes: &'a [u8]) -> Result<Box<dyn Read + 'a>> {
    Ok(match Way::of(bytes) {
        None => Box::new(bytes),
        Some(Way::Gzip) => Box::new(flate2::bufread::GzDecoder::new(bytes)),
        Some(Way::Xz) => Box::new(lzma_rust2::XzReader::new(bytes, false)),
        Some(Way::Zstd) => {
            let decoder = ruzstd::decoding::StreamingDecoder::new(bytes);
            Box::new(decoder.map_err(io::Error::other).context("read the head of zstd")?)
        }
        Some(Way::Lz4) => return Err(Error::invalid("lz4 of a kernel is no stream")),
    })
}

/// Blocks with their lengths before them; the last may be followed by a word that is no block.
fn lz4(bytes: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let mut rest = bytes.get(4..).unwrap_or_default();
    while let Some((length, behind)) = rest.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let Some((block, behind)) = behind.split_at_checked(length) else { break };
        let block = lz4_flex::block::decompress(block, LZ4_BLOCK);
        out.extend(block.map_err(io::Error::other).context("decompress lz4")?);
        rest = behind;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn bytes_come_out_as_they_went_in_whatever_follows() {
        let text = b"text text text text";
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(text).unwrap();
        let gzip = gzip.finish().unwrap();
        // One literal run: a token with its length, and the bytes.
        let block = [&[0xf0, 4][..], text].concat();
        let length = u32::try_from(block.len()).unwrap().to_le_bytes();
        let lz4 = [b"\x02\x21\x4c\x18", &length[..], &block, &99_u32.to_le_bytes()].concat();
        // `xz --check=crc32` and `zstd` of the same text.
        let xz = hex::decode(XZ).unwrap();
        let zstd = hex::decode(ZSTD).unwrap();
        for compressed in [gzip, lz4, xz, zstd, text.to_vec()] {
            assert_eq!(&*decompress(&compressed).unwrap(), text, "{compressed:x?}");
        }
    }

    const XZ: &str = "fd377a585a0000016922de360200210116000000742fe5a3e00012000b5d003a194b78103b308b80000000001bb6282b000123139483911a9042990d010000000001595a";
    const ZSTD: &str = "28b52ffd04585d00002874657874200100908b1632788e2c";

    #[test]
    fn damage_is_an_error() {
        assert!(decompress(b"\xfd7zXZ\x00garbage").is_err());
        assert!(decompress(b"\x28\xb5\x2f\xfdgarbage").is_err());
    }
}
