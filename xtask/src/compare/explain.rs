//! Differences that are meant: `explained.txt`, a line each, `bundle | field | reason`.

use anyhow::{Context, Result};

use crate::sh;

/// All explanations, and which of them were needed.
pub(super) struct Explained(Vec<Line>);

pub(super) struct Line {
    pub(super) bundle: String,
    pub(super) field: String,
    pub(super) reason: String,
    pub(super) uses: usize,
}

impl Line {
    pub(super) fn is_about(&self, bundle: &str, field: &str) -> bool {
        matches(&self.bundle, bundle) && matches(&self.field, field)
    }
}

impl Explained {
    pub(super) fn read() -> Result<Self> {
        let path = sh::root().join("xtask/src/compare/explained.txt");
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> Result<Self> {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let parsed = lines.map(|line| {
            let mut parts = line.splitn(3, " | ").map(|part| part.trim().to_owned());
            let mut part = || parts.next().with_context(|| format!("explained.txt: {line:?}"));
            Ok(Line { bundle: part()?, field: part()?, reason: part()?, uses: 0 })
        });
        parsed.collect::<Result<_>>().map(Self)
    }

    /// Why a field differs: the first line that is about it.
    pub(super) fn reason(&mut self, bundle: &str, field: &str) -> Option<String> {
        let line = self.0.iter_mut().find(|line| line.is_about(bundle, field))?;
        line.uses += 1;
        Some(line.reason.clone())
    }

    /// Those that were about nothing.
    pub(super) fn stale(&self) -> Vec<String> {
        let stale = self.0.iter().filter(|line| line.uses == 0);
        stale.map(|line| format!("{} | {}", line.bundle, line.field)).collect()
    }

    pub(super) fn lines(&self) -> &[Line] {
        &self.0
    }
}

/// Whether a text is like a pattern, in which `*` stands for anything.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(head) else { return false };
    loop {
        if matches(rest, text) {
            return true;
        }
        let Some(first) = text.chars().next() else { return false };
        text = &text[first.len_utf8()..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_may_have_a_star_anywhere() {
        for (pattern, text, expected) in [
            ("a.b", "a.b", true),
            ("a.b", "a.bc", false),
            ("a.*", "a.bc", true),
            ("*.code", "start.code", true),
            ("*.mounts.*.super", "inside.mounts./dev.super", true),
            ("*.x", "a.xy", false),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn a_line_that_explains_nothing_is_stale() {
        let mut all = Explained::parse("# x\na.* | left | it is so\nb | * | too\n").unwrap();
        assert_eq!(all.reason("a.b", "left").as_deref(), Some("it is so"));
        assert_eq!(all.reason("a.b", "right"), None);
        assert_eq!(all.stale(), ["b | *"]);
        assert!(Explained::parse("a | b").is_err());
    }
}
