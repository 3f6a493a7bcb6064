//! What a shim's `start` prints: where its service listens, and which version it speaks.
//!
//! Three forms exist: a plain address, a JSON object (1.7 on), a protobuf message (2.3 on). A newer
//! daemon tries the newer forms first and falls back, in the order that [`Answer::parse`] keeps.

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use shim_protos::bootstrap::BootstrapResult;
use shim_protos::protobuf::Message;

use crate::generation::Generation;

/// A shim's answer to `start`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Version of the task service: 2 or 3.
    pub version: u32,
    /// Where it listens: `unix://` and a path, or the name of an abstract socket.
    #[serde(default)]
    pub address: String,
    /// `ttrpc`, the only protocol there is.
    #[serde(default)]
    pub protocol: String,
}

impl Answer {
    /// Reads what `start` printed as that generation of containerd would.
    pub fn parse(generation: Generation, output: &[u8]) -> Result<Self> {
        let answer = match generation {
            Generation::V1_6 => Self::plain(output)?,
            Generation::V1_7 | Generation::V2_0 | Generation::V2_2 => Self::json_or_plain(output)?,
            Generation::V2_3 => match BootstrapResult::parse_from_bytes(output) {
                Ok(result) if !result.address.is_empty() => Self::from_message(result)?,
                // JSON begins like a group of fields, and never ends one: Go's decoder refuses
                // that, and ours skips to the end and finds nothing.
                _ => Self::json_or_plain(output)?,
            },
        };
        answer.check(generation)?;
        Ok(answer)
    }

    fn plain(output: &[u8]) -> Result<Self> {
        let address = String::from_utf8(output.to_vec()).context("the address is not text")?;
        Ok(Self { version: 2, address: address.trim().to_owned(), protocol: "ttrpc".to_owned() })
    }

    fn json_or_plain(output: &[u8]) -> Result<Self> {
        match serde_json::from_slice::<Self>(output.trim_ascii()) {
            Ok(answer) if answer.version >= 2 => Ok(answer),
            _ => Self::plain(output),
        }
    }

    fn from_message(result: BootstrapResult) -> Result<Self> {
        let version = u32::try_from(result.version)
            .with_context(|| format!("version {} of the task service", result.version))?;
        Ok(Self { version, address: result.address, protocol: result.protocol })
    }

    fn check(&self, generation: Generation) -> Result<()> {
        if self.address.is_empty() {
            bail!("`start` printed no address");
        }
        // Text of any other kind would end up here as an address; a line break gives it away.
        if self.address.contains('\n') {
            bail!("`start` printed more than an address:\n{}", self.address);
        }
        if !(2..=generation.newest_service()).contains(&self.version) {
            bail!(
                "containerd {generation} cannot speak version {} of the task service",
                self.version
            );
        }
        if !self.protocol.eq_ignore_ascii_case("ttrpc") {
            bail!("protocol {:?}: this client speaks ttrpc only", self.protocol);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: &str = "unix:///run/containerd/s/0f";

    fn answer(version: u32) -> Answer {
        Answer { version, address: ADDRESS.to_owned(), protocol: "ttrpc".to_owned() }
    }

    fn message(version: i32) -> Vec<u8> {
        BootstrapResult {
            version,
            address: ADDRESS.to_owned(),
            protocol: "ttrpc".to_owned(),
            ..BootstrapResult::default()
        }
        .write_to_bytes()
        .unwrap()
    }

    #[test]
    fn every_generation_takes_a_plain_address_as_version_2() {
        for generation in Generation::ALL {
            let text = format!("{ADDRESS}\n");
            assert_eq!(Answer::parse(generation, text.as_bytes()).unwrap(), answer(2));
        }
    }

    #[test]
    fn json_is_understood_from_1_7_and_version_3_from_2_0() {
        let json = |version: u32| {
            format!(r#"{{"version":{version},"address":"{ADDRESS}","protocol":"ttrpc"}}"#)
        };
        let parse = |generation, version| Answer::parse(generation, json(version).as_bytes());
        assert_eq!(parse(Generation::V1_7, 2).unwrap(), answer(2));
        assert_eq!(parse(Generation::V2_0, 3).unwrap(), answer(3));
        assert_eq!(parse(Generation::V2_3, 3).unwrap(), answer(3));
        assert!(parse(Generation::V1_7, 3).is_err());
        assert!(parse(Generation::V2_3, 4).is_err());
        // 1.6 takes the whole text for an address, which then cannot be connected to.
        assert_eq!(parse(Generation::V1_6, 2).unwrap().address, json(2));
    }

    #[test]
    fn a_message_is_understood_from_2_3() {
        assert_eq!(Answer::parse(Generation::V2_3, &message(3)).unwrap(), answer(3));
        assert!(Answer::parse(Generation::V2_3, &message(4)).is_err());
        assert!(Answer::parse(Generation::V2_3, &message(-1)).is_err());
        let plain = Answer::parse(Generation::V2_0, &message(3)).unwrap();
        assert_ne!(plain.address, ADDRESS);
    }

    #[test]
    fn json_of_an_older_dialect_is_no_message() {
        let address = "unix:///run/containerd/s/73bfcdf2e53f695f7e1a9dba2035f9602dd89e14707c8d5143a23e198e4a3892";
        let json = format!(r#"{{"address":"{address}","protocol":"ttrpc","version":2}}"#);
        let parsed = Answer::parse(Generation::V2_3, json.as_bytes()).unwrap();
        assert_eq!((parsed.address.as_str(), parsed.version), (address, 2));
    }

    #[test]
    fn silence_and_chatter_are_refused() {
        for generation in Generation::ALL {
            assert!(Answer::parse(generation, b"").is_err(), "{generation}");
            let chatter = format!("level=info msg=hello\n{ADDRESS}");
            assert!(Answer::parse(generation, chatter.as_bytes()).is_err(), "{generation}");
        }
    }
}
