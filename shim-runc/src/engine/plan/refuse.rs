//! What this engine does not do. A spec that asks for it is refused: what is silently left out is
//! found out too late.

use oci_spec::runtime::{Process, Spec};
use shim_core::{Error, Kind, Result};

pub(crate) fn check(spec: &Spec) -> Result<()> {
    version(spec.version())?;
    let foreign = [
        (spec.vm().is_some(), "vm"),
        (spec.windows().is_some(), "windows"),
        (spec.solaris().is_some(), "solaris"),
    ];
    refuse(&foreign)?;
    spec.process().as_ref().map_or(Ok(()), check_process)
}

pub(super) fn check_process(process: &Process) -> Result<()> {
    refuse(&[
        (is_set(process.user().username().as_deref()), "process.user.username"),
        (is_set(process.command_line().as_deref()), "process.commandLine"),
    ])
}

fn is_set(text: Option<&str>) -> bool {
    text.is_some_and(|text| !text.is_empty())
}

fn refuse(asked: &[(bool, &str)]) -> Result<()> {
    match asked.iter().find(|(asked, _)| *asked) {
        Some((_, what)) => {
            let why = format!("{what} in the spec is not supported");
            Err(Error::new(Kind::Unsupported, why))
        }
        None => Ok(()),
    }
}

/// Any version 1 will do: later ones only add.
fn version(version: &str) -> Result<()> {
    let mut parts = version.splitn(3, '.');
    let is_number = |part: Option<&str>| part.is_some_and(|part| part.parse::<u32>().is_ok());
    let major = parts.next();
    let minor = is_number(parts.next());
    let patch = parts.next().and_then(|patch| patch.split(['-', '+']).next());
    if major == Some("1") && minor && is_number(patch) {
        return Ok(());
    }
    Err(Error::invalid(format!("ociVersion {version:?} is not supported, only 1.x is")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_from_1_on_are_accepted() {
        for good in ["1.0.0", "1.0.2-dev", "1.2.1", "1.3.0+build"] {
            assert!(version(good).is_ok(), "{good}");
        }
        for bad in ["", "0.9.0", "2.0.0", "1", "1.x.0", "one"] {
            assert!(version(bad).is_err(), "{bad}");
        }
    }
}
