//! Which build a program is: the two halves of a sandbox have to be of one.

use std::{fs, path::Path, sync::OnceLock};

use shim_core::{Context, Error, Kind, Result};

/// The build of a program: a hash of its file. It tells mistakes, not enemies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Build(String);

impl Build {
    /// That of the running program.
    ///
    /// # Errors
    /// When the program can't be read.
    pub fn own() -> Result<Self> {
        static OWN: OnceLock<Build> = OnceLock::new();
        if let Some(own) = OWN.get() {
            return Ok(own.clone());
        }
        let own = Self::of("/proc/self/exe")?;
        Ok(OWN.get_or_init(|| own).clone())
    }

    /// That of another program.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn of(program: impl AsRef<Path>) -> Result<Self> {
        let path = program.as_ref();
        let program = fs::read(path).with_context(|| format!("read {}", path.display()))?;
        Ok(Self(format!("{:016x}-{:x}", hash(&program), program.len())))
    }

    /// As it is told.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Compares it with what the other half says of itself.
    ///
    /// # Errors
    /// `FailedPrecondition` when they differ.
    pub(crate) fn check(&self, others: &str) -> Result<()> {
        if self.0 == others {
            return Ok(());
        }
        let others: String = others.chars().take(64).collect();
        let why = format!("the two halves are of builds {} and {others:?}", self.0);
        Err(Error::new(Kind::FailedPrecondition, why))
    }
}

/// FNV-1a over words, not bytes: a guest may be an emulated machine, where each step counts.
fn hash(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mixed = |hash: u64, word: u64| (hash ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(29);
    let all = words
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, word| mixed(hash, u64::from_le_bytes(*word)));
    rest.iter().fold(all, |hash, byte| mixed(hash, u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bit_counts() {
        let mut bytes = [7; 21];
        let first = hash(&bytes);
        for at in 0..bytes.len() {
            bytes[at] ^= 1;
            assert_ne!(hash(&bytes), first, "{at}");
            bytes[at] ^= 1;
        }
        let own = Build::own().unwrap();
        assert!(own.check(own.as_str()).is_ok() && own.check("x").is_err());
    }
}
