//! Doors for fuzzers: each takes any bytes, and must neither panic nor hang.
//!
//! The targets are in `fuzz/`; what they found, and what they start from, is replayed by the tests
//! here.

pub use crate::{
    entry::fuzzing::{bootstrap, flags},
    service::fuzzing::{frames, request},
};

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    /// How many variants of each file of the corpus are tried.
    const VARIANTS: u64 = 200;

    /// A door takes the corpus of its name, and what random damage makes of it.
    fn replay(target: &str, door: fn(&[u8])) {
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

    #[test]
    fn flags_take_anything() {
        replay("flags", flags);
    }

    #[test]
    fn bootstrap_takes_anything() {
        replay("bootstrap", bootstrap);
    }

    #[test]
    fn frames_take_anything() {
        replay("frames", frames);
    }

    #[test]
    fn requests_take_anything() {
        replay("request", request);
    }
}
