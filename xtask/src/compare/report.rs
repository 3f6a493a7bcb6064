//! The judgement: field by field, ours against the peers.

use std::{collections::BTreeSet, fmt::Write};

use super::{
    bundle::Bundle,
    explain::Explained,
    field::Fields,
    subject::{OURS, Subject},
};

/// The bundle without any wishes.
pub(super) const PLAIN: &str = "process.plain";

/// The value of a field that is not there.
const ABSENT: &str = "absent";

/// What came of one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The peers do not agree, and ours is like these.
    Follows(Vec<&'static str>),
    /// Some refuse the bundle, and the others differ as they do in the plain one, where there are
    /// more to be like.
    AsPlain,
    /// Ours is like nobody, for a reason.
    Explained(String),
    /// Ours is like nobody.
    Differs,
}

/// A field of which there are at least two values.
#[derive(Clone, Debug)]
pub(super) struct Difference {
    pub(super) field: String,
    /// Runtime and value, in the order of the runtimes; without those that refuse the bundle.
    pub(super) values: Vec<(&'static str, String)>,
    pub(super) verdict: Verdict,
}

/// All bundles, judged.
pub(super) struct Compared(pub(super) Vec<Judged>);

/// One bundle, judged.
pub(super) struct Judged {
    pub(super) name: String,
    /// Who does not make such a container.
    pub(super) refusing: Vec<&'static str>,
    pub(super) differences: Vec<Difference>,
}

impl Compared {
    /// Judges everything; `seen` is by runtime, then by bundle.
    pub(super) fn of(
        bundles: &[Bundle],
        subjects: &[Subject],
        seen: &[Vec<Fields>],
        explained: &mut Explained,
    ) -> Self {
        let plain = bundles.iter().position(|bundle| bundle.name == PLAIN);
        let judged = bundles.iter().enumerate().map(|(number, bundle)| {
            let all =
                subjects.iter().zip(seen).map(|(subject, seen)| (subject.name, &seen[number]));
            let mut judged = judge(&bundle.name, &all.collect::<Vec<_>>());
            judged
                .compare_with_plain(subjects, plain.map(|at| seen.iter().map(move |all| &all[at])));
            judged.explain(explained);
            judged
        });
        Self(judged.collect())
    }

    pub(super) fn unexplained(&self) -> usize {
        let all = self.0.iter().flat_map(|judged| &judged.differences);
        all.filter(|one| one.verdict == Verdict::Differs).count()
    }

    /// The report for a terminal; with `all` what is only a matter between the peers as well.
    pub(super) fn told(&self, all: bool) -> String {
        let mut text = String::new();
        let mut line = |line: String| writeln!(text, "{line}").expect("a String takes everything");
        for judged in &self.0 {
            line(format!("{}: {}", judged.name, judged.verdict()));
            let shown = |one: &&Difference| all || one.verdict == Verdict::Differs;
            for one in judged.differences.iter().filter(shown) {
                line(format!("    {}: {}", one.field, one.told()));
            }
        }
        text
    }
}

impl Difference {
    /// `runc=… crun=… ours=…`
    pub(super) fn told(&self) -> String {
        let values = self.values.iter().map(|(name, value)| format!("{name}={value:?}"));
        values.collect::<Vec<_>>().join(" ")
    }
}

impl Judged {
    /// The bundle's line: `same`, or how many fields differ in which way.
    pub(super) fn verdict(&self) -> String {
        let (mut differs, mut explained, mut follows) = (0, 0, 0);
        for one in &self.differences {
            match one.verdict {
                Verdict::Differs => differs += 1,
                Verdict::Explained(_) => explained += 1,
                Verdict::Follows(_) | Verdict::AsPlain => follows += 1,
            }
        }
        let mut parts = Vec::new();
        if !self.refusing.is_empty() {
            parts.push(format!("refused by {}", self.refusing.join(", ")));
        }
        let counts =
            [(differs, "unexplained"), (explained, "meant"), (follows, "where the peers disagree")];
        let counts = counts.iter().filter(|(count, _)| *count > 0);
        parts.extend(counts.map(|(count, what)| format!("{count} {what}")));
        if parts.is_empty() { "same".to_owned() } else { parts.join(", ") }
    }

    fn compare_with_plain<'a>(
        &mut self,
        subjects: &[Subject],
        plain: Option<impl Iterator<Item = &'a Fields>>,
    ) {
        let Some(plain) = plain.filter(|_| !self.refusing.is_empty()) else { return };
        let plain: Vec<_> = subjects.iter().map(|subject| subject.name).zip(plain).collect();
        for one in self.differences.iter_mut().filter(|one| one.verdict == Verdict::Differs) {
            let is_plain = |(name, value): &(&str, String)| {
                let known = plain.iter().find(|(known, _)| known == name);
                known.is_some_and(|(_, seen)| seen.value(&one.field).unwrap_or(ABSENT) == value)
            };
            if one.values.iter().all(is_plain) {
                one.verdict = Verdict::AsPlain;
            }
        }
    }

    fn explain(&mut self, explained: &mut Explained) {
        for one in self.differences.iter_mut().filter(|one| one.verdict == Verdict::Differs) {
            if let Some(reason) = explained.reason(&self.name, &one.field) {
                one.verdict = Verdict::Explained(reason);
            }
        }
    }
}

fn judge(name: &str, seen: &[(&'static str, &Fields)]) -> Judged {
    let refusing: Vec<_> =
        seen.iter().filter(|(_, fields)| fields.is_refusal()).map(|(name, _)| *name).collect();
    let mut differences = Vec::new();
    let ours_refuses = refusing.contains(&OURS);
    let made = seen.iter().map(|(name, _)| {
        (*name, if refusing.contains(name) { "refused" } else { "made" }.to_owned())
    });
    differences.extend(difference("made", made.collect()));
    // Of a container that is refused there is nothing to compare but what is left of it.
    let kept: Vec<_> =
        seen.iter().filter(|(name, _)| refusing.contains(name) == ours_refuses).copied().collect();
    let names: BTreeSet<&str> = kept.iter().flat_map(|(_, fields)| fields.names()).collect();
    for field in names.into_iter().filter(|field| *field != "said") {
        let value = |fields: &Fields| fields.value(field).unwrap_or(ABSENT).to_owned();
        let values = kept.iter().map(|(name, fields)| (*name, value(fields))).collect();
        differences.extend(difference(field, values));
    }
    Judged { name: name.to_owned(), refusing, differences }
}

/// Nothing where all values are the same; the last one is ours.
fn difference(field: &str, values: Vec<(&'static str, String)>) -> Option<Difference> {
    let ((_, ours), peers) = values.split_last()?;
    if peers.iter().all(|(_, value)| value == ours) {
        return None;
    }
    let like: Vec<_> =
        peers.iter().filter(|(_, value)| value == ours).map(|(name, _)| *name).collect();
    let verdict = if like.is_empty() { Verdict::Differs } else { Verdict::Follows(like) };
    Some(Difference { field: field.to_owned(), values, verdict })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(values: &[(&'static str, &str)]) -> Option<Verdict> {
        let values = values.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        difference("x", values).map(|one| one.verdict)
    }

    #[test]
    fn ours_differs_when_it_is_like_nobody() {
        assert_eq!(verdict(&[("runc", "a"), ("crun", "a"), (OURS, "a")]), None);
        let like_runc = Some(Verdict::Follows(vec!["runc"]));
        assert_eq!(verdict(&[("runc", "a"), ("crun", "b"), (OURS, "a")]), like_runc);
        for both in ["a", "b"] {
            let values = [("runc", "a"), ("crun", both), (OURS, "c")];
            assert_eq!(verdict(&values), Some(Verdict::Differs));
        }
    }
}
