//! `image build`: from a command line to an image.

use std::{ffi::OsString, path::PathBuf};

use shim_core::{Error, Result};

use super::{FOLDER, Image, Source};

const USAGE: &str =
    "image build [--deb FILE]... [--kernel FILE --modules DIR] [--program FILE] [--output DIR]";

/// Does what the words behind `image` say, and returns what is to be said about it.
///
/// # Errors
/// `InvalidArgument` for other words; else those of [`Image::build`].
pub(crate) fn command(arguments: &[OsString]) -> Result<String> {
    let asked = Asked::parse(arguments)?;
    let image = Image::build(&asked.source, &asked.program, &asked.output)?;
    let about = &image.about;
    let form = if about.unpacked { "unpacked" } else { "packed" };
    Ok(format!(
        "{}: kernel {} ({form}), {} modules\n",
        asked.output.display(),
        about.release,
        about.modules.len()
    ))
}

#[derive(Debug, PartialEq, Eq)]
struct Asked {
    source: Source,
    program: PathBuf,
    output: PathBuf,
}

impl Asked {
    fn parse(arguments: &[OsString]) -> Result<Self> {
        let mut words = arguments.iter();
        if words.next().is_none_or(|word| word != "build") {
            return Err(Error::invalid(format!("usage: {USAGE}")));
        }
        let (mut packages, mut kernel, mut modules) = (Vec::new(), None, None);
        let (mut program, mut output) = (PathBuf::from("/proc/self/exe"), PathBuf::from(FOLDER));
        while let Some(flag) = words.next() {
            let flag = flag.to_string_lossy();
            let mut value = || {
                let value = words.next().map(PathBuf::from);
                value.ok_or_else(|| Error::invalid(format!("{flag} has no value: {USAGE}")))
            };
            match &*flag {
                "--deb" => packages.push(value()?),
                "--kernel" => kernel = Some(value()?),
                "--modules" => modules = Some(value()?),
                "--program" => program = value()?,
                "--output" => output = value()?,
                _ => return Err(Error::invalid(format!("unknown flag {flag}: {USAGE}"))),
            }
        }
        let source = match (kernel, modules) {
            (None, None) if packages.is_empty() => Source::Machine,
            (None, None) => Source::Packages(packages),
            (Some(kernel), Some(modules)) if packages.is_empty() => {
                Source::Files { kernel, modules }
            }
            _ => {
                let why = format!("--kernel goes with --modules, and neither with --deb: {USAGE}");
                return Err(Error::invalid(why));
            }
        };
        Ok(Self { source, program, output })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Asked> {
        let words: Vec<_> = line.split_whitespace().map(OsString::from).collect();
        Asked::parse(&words)
    }

    #[test]
    fn sources_exclude_each_other() {
        assert_eq!(parse("build").unwrap().source, Source::Machine);
        let asked = parse("build --deb a --deb b --output o").unwrap();
        assert_eq!(asked.source, Source::Packages(vec!["a".into(), "b".into()]));
        assert_eq!(asked.output, PathBuf::from("o"));
        let files = Source::Files { kernel: "k".into(), modules: "m".into() };
        assert_eq!(parse("build --kernel k --modules m").unwrap().source, files);
        for wrong in
            ["", "list", "build --kernel k", "build --deb", "build --deb d --modules m", "build x"]
        {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
