//! What the host tells the guest on the kernel's command line: words that begin with `shim.`.

use shim_core::{Context, Result};

use crate::channel::Word;

/// The name of the word of this boot.
pub(crate) const WORD: &str = "shim.word";

/// What is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) word: Word,
}

impl Told {
    /// Reads `/proc/cmdline`'s text.
    ///
    /// # Errors
    /// When the word of the boot is missing or none.
    pub(super) fn parse(line: &str) -> Result<Self> {
        let value = |name| {
            let pairs = line.split_whitespace().filter_map(|word| word.split_once('='));
            pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).next_back()
        };
        let word = Word::parse(value(WORD).unwrap_or_default()).context("read shim.word")?;
        Ok(Self { word })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_is_found_among_others_words() {
        let told = Told::parse("console=ttyS0 quiet shim.word=a1 x\n").unwrap();
        assert_eq!(told.word.as_str(), "a1");
        let err = Told::parse("console=ttyS0 shim.wordy=a").unwrap_err();
        assert!(format!("{err:#}").starts_with("read shim.word: "), "{err:#}");
    }
}
