//! The corpus of a fuzz target, and random damage of it, through the target's door.

use std::{fs, path::Path};

/// How many variants of each file of the corpus are tried.
const VARIANTS: u64 = 200;

/// A door takes the corpus of its name, and what random damage makes of it.
pub(crate) fn replay(target: &str, door: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let mut files: Vec<_> = fs::read_dir(&corpus).unwrap().map(|file| file.unwrap()).collect();
    assert!(!files.is_empty(), "{} is empty", corpus.display());
    files.sort_by_key(|file| file.file_name());
    for file in files {
        let bytes = fs::read(file.path()).unwrap();
        door(&bytes);
        (1..=VARIANTS).for_each(|seed| door(&damaged(&bytes, seed)));
    }
}

/// The bytes with a few of them changed, inserted or cut: the same ones for the same seed.
fn damaged(bytes: &[u8], seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut random = |end: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 16).unwrap() % end.max(1)
    };
    let mut bytes = bytes.to_vec();
    for _ in 0..=random(4) {
        let at = random(bytes.len() + 1);
        let byte = u8::try_from(random(256)).unwrap();
        match random(4) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, byte),
            _ => {
                if let Some(old) = bytes.get_mut(at) {
                    *old = byte;
                }
            }
        }
    }
    bytes
}
