//! The first words on a line: who is there is of this boot, and of this build.

use shim_core::{Context, Error, Result};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// What may come before the greeting: firmware writes to serial ports, too.
const NOISE_LIMIT: usize = 64 << 10;

/// The word of one boot: random, so that nothing older is taken for this one's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word(String);

impl Word {
    /// A word that was handed over, on the kernel's command line for one.
    ///
    /// # Errors
    /// `InvalidArgument` when it is not 1 to 64 letters and digits.
    pub fn parse(text: &str) -> Result<Self> {
        let is_word =
            (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric());
        if !is_word {
            return Err(Error::invalid(format!("{text:?} is no word of a boot")));
        }
        Ok(Self(text.to_owned()))
    }

    /// As it is handed over.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn line(&self, who: &str) -> Vec<u8> {
        format!("\nshim-{who} {}\n", self.0).into_bytes()
    }
}

/// Greets as the guest, and waits for the host.
///
/// # Errors
/// When the line breaks, or somebody else is there.
pub async fn greet_host(
    line: &mut (impl AsyncRead + AsyncWrite + Unpin),
    word: &Word,
) -> Result<()> {
    line.write_all(&word.line("guest")).await.context("greet the host")?;
    line.flush().await.context("greet the host")?;
    hear(line, &word.line("host")).await.context("wait for the host's greeting")
}

/// Waits for the guest, and greets it.
///
/// # Errors
/// When the line breaks, or somebody else is there.
pub async fn greet_guest(
    line: &mut (impl AsyncRead + AsyncWrite + Unpin),
    word: &Word,
) -> Result<()> {
    hear(line, &word.line("guest")).await.context("wait for the guest's greeting")?;
    line.write_all(&word.line("host")).await.context("greet the guest")?;
    line.flush().await.context("greet the guest")
}

/// Reads up to the end of a greeting, and no byte further: what follows is the first stream's.
async fn hear(line: &mut (impl AsyncRead + Unpin), expected: &[u8]) -> Result<()> {
    let mut heard: Vec<u8> = Vec::new();
    while !heard.ends_with(expected) {
        if heard.len() >= NOISE_LIMIT {
            let tail = heard.get(heard.len() - 100..).unwrap_or_default();
            let tail = String::from_utf8_lossy(tail);
            return Err(Error::other(format!("{NOISE_LIMIT} bytes and no greeting: {tail:?}")));
        }
        heard.push(line.read_u8().await.context("the line ended")?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().build().unwrap()
    }

    #[test]
    fn a_greeting_is_heard_through_noise_and_ends_where_it_ends() {
        runtime().block_on(async {
            let (mut guest, mut host) = duplex(1 << 10);
            let word = Word::parse("abc1").unwrap();
            guest.write_all(b"\nshim-guest old\nBIOS").await.unwrap();
            let (guests, hosts) =
                tokio::join!(greet_host(&mut guest, &word), greet_guest(&mut host, &word));
            guests.unwrap();
            hosts.unwrap();
            guest.write_all(b"x").await.unwrap();
            assert_eq!(host.read_u8().await.unwrap(), b'x');
        });
    }

    #[test]
    fn noise_has_a_limit_and_words_have_no_blanks() {
        runtime().block_on(async {
            let mut noise: &[u8] = &[b'n'; NOISE_LIMIT + 1];
            let err = hear(&mut noise, b"word").await.unwrap_err();
            assert!(err.to_string().contains("no greeting"), "{err:#}");
        });
        assert!(Word::parse("a b").is_err());
        assert!(Word::parse("").is_err());
    }
}
