//! What a test program in the guest has told about its cases.
//!
//! Three forms: `test NAME ... ok` with the case's own words before it, as the engine's tests and
//! [`runner`](crate::runner) print; the same with all words at the end, as libtest's `--show-output`
//! has them; and the JSON of `shimctl conform`.

use std::collections::HashMap;

use serde_json::Value;

use crate::runner::Verdict;

/// What became of a case.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Case {
    pub(super) name: String,
    pub(super) verdict: Verdict,
    /// Why it failed or was skipped, as far as it said.
    pub(super) why: String,
}

/// Reads lines of either form.
pub(super) fn lines(text: &str) -> Vec<Case> {
    let (mut cases, mut words) = (Vec::new(), Vec::new());
    let mut sections: HashMap<&str, Vec<&str>> = HashMap::new();
    let mut section = None;
    for line in text.lines() {
        if let Some((name, verdict)) = Verdict::of_line(line) {
            let rest = line.split_once(" ... ").map_or("", |(_, rest)| rest);
            words.push(rest.trim_start_matches(verdict.word()).trim_start_matches(": "));
            cases.push((name, verdict, std::mem::take(&mut words)));
        } else if let Some(name) = section_of(line) {
            section = Some(name);
        } else if matches!(line, "successes:" | "failures:") {
            section = None;
        } else if let Some(name) = section {
            sections.entry(name).or_default().push(line);
        } else {
            words.push(line);
        }
    }
    let case = |(name, verdict, mut words): (&str, Verdict, Vec<&str>)| {
        words.extend(sections.remove(name).unwrap_or_default());
        let skipped = words.iter().find_map(|word| word.trim_start().strip_prefix("skipped: "));
        let (verdict, why) = match skipped {
            Some(why) if verdict == Verdict::Passed => (Verdict::Skipped, why.to_owned()),
            _ => (verdict, words.join("\n").trim().to_owned()),
        };
        Case { name: name.to_owned(), verdict, why }
    };
    cases.into_iter().map(case).collect()
}

/// `---- NAME stdout ----`
fn section_of(line: &str) -> Option<&str> {
    line.strip_prefix("---- ")?.strip_suffix(" stdout ----")
}

/// Reads the report of `shimctl conform`; none when there is none.
pub(super) fn report(text: &str) -> Vec<Case> {
    // Its progress goes before it.
    let from = text.find("\n{").map_or(0, |at| at + 1);
    let report: Value = serde_json::from_str(&text[from..]).unwrap_or_default();
    let case = |case: &Value| {
        let word = |key: &str| case[key].as_str().unwrap_or_default().to_owned();
        let verdict = match case["outcome"].as_str() {
            Some("passed") => Verdict::Passed,
            Some("skipped") => Verdict::Skipped,
            _ => Verdict::Failed,
        };
        Case { name: format!("{}.{}", word("group"), word("name")), verdict, why: word("why") }
    };
    report["cases"].as_array().into_iter().flatten().map(case).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(cases: &[Case], expect: &[(&str, Verdict, &str)]) {
        let found: Vec<_> = cases
            .iter()
            .map(|case| (case.name.as_str(), case.verdict, case.why.as_str()))
            .collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn words_before_a_line_are_the_case_s() {
        let text = "test a ... ok (1s)\n       skipped: no rdma\ntest b ... ok (2ms)\n\
                    left != right\ntest c ... FAILED (3s)\ntest d ... SKIPPED: too old\n1 passed\n";
        check(
            &lines(text),
            &[
                ("a", Verdict::Passed, "(1s)"),
                ("b", Verdict::Skipped, "no rdma"),
                ("c", Verdict::Failed, "left != right\n (3s)"),
                ("d", Verdict::Skipped, "too old"),
            ],
        );
    }

    #[test]
    fn words_at_the_end_are_found_by_name() {
        let text = "running 3 tests\ntest a ... ok\ntest b ... FAILED\ntest c ... ok\n\nsuccesses:\n\n\
                    ---- a stdout ----\nskipped: not here\n\n\nsuccesses:\n    a\n    c\n\n\
                    failures:\n\n---- b stdout ----\nno\n\n\nfailures:\n    b\n";
        check(
            &lines(text),
            &[
                ("a", Verdict::Skipped, "not here"),
                ("b", Verdict::Failed, "no"),
                ("c", Verdict::Passed, ""),
            ],
        );
    }

    #[test]
    fn a_report_is_read() {
        let text = "as 2.3: 2 cases\n{\"cases\":[\
                    {\"group\":\"oom\",\"name\":\"told\",\"outcome\":\"passed\"},\
                    {\"group\":\"oom\",\"name\":\"late\",\"outcome\":\"broken\",\"why\":\"none\"}]}\n";
        check(
            &report(text),
            &[("oom.told", Verdict::Passed, ""), ("oom.late", Verdict::Failed, "none")],
        );
        assert_eq!(report("no such option"), []);
    }
}
