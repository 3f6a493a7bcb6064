//! docs/security.md: the classes, their checks, their tests, and what these say without a check.

use std::{collections::BTreeSet, fmt::Write, fs, process::Command};

use anyhow::{Context, Result};

use super::{Found, list::Class};
use crate::sh;

const HEAD: &str = "\
# Security: known classes of holes, and what closes them

Runtimes have had holes of the same few kinds over and over. For each kind there are tests that
attack as it was done then; their names begin with the class, and each runs with `cargo test`. For
each check there is a proof that a test depends on it: `cargo xtask mutants` takes the check out, in a
copy of the tree, and sees the test fail. The last such run wrote this page. `xtask/mutants.toml` has
the changes; a test of every day sees that they still fit the source.

| class | where it was | what it is |
|---|---|---|
";

const CHECKS: &str = "
## Checks, and what happens without them

";

const TAIL: &str = "\
## Not shown by taking something out

- Writes of a user namespace to cgroups (`cgroup_tree`): the kernel's ownership of the files forbids
  them; there is no check of ours to take out.
- `huge_spec`: programs, environments and texts that are too long are the kernel's to refuse. The tests
  see that its refusal arrives, and that the next container is made as ever.
- `groups`: a shim runs as root, so it leaves setgroups(2) to user namespaces that it maps; groups of
  the host that are not mapped can't be had there.

## What is left open

A container that shares its pid namespace with another one, which has `CAP_SYS_PTRACE` and no user
namespace, can be looked into by that one while it is being made, with the host's files in sight until
its change of root. Whoever shares a pid namespace with such a container trusts it.
";

/// The whole page.
pub(super) fn write(classes: &[Class], found: &Found) -> Result<String> {
    let written = tests()?;
    let mut page = HEAD.to_owned();
    for class in classes {
        let known = class.known.join(", ");
        add(&mut page, &format!("| `{}` | {known} | {} |\n", class.name, class.what));
    }
    page.push_str(CHECKS);
    for class in classes {
        add(&mut page, &format!("### `{}`\n\n", class.name));
        for mutant in &class.mutants {
            let files: BTreeSet<_> = mutant.changes.iter().map(|one| one.file.as_str()).collect();
            let files: Vec<_> = files.into_iter().map(|file| format!("`{file}`")).collect();
            let (check, at) = (&mutant.check, &mutant.at);
            add(&mut page, &format!("**Check**: {check} (`{at}`, {}).\n", files.join(", ")));
            for one in found.get(&class.key(mutant)).into_iter().flatten() {
                let how = one.how.replace('`', "'");
                add(&mut page, &format!("- without it, `{}`: `{how}`\n", one.test));
            }
            if !found.contains_key(&class.key(mutant)) {
                page.push_str("- not tried yet\n");
            }
            page.push('\n');
        }
        let all = written.iter().filter(|name| class.owns(name));
        let all: Vec<_> = all.map(|name| format!("`{name}`")).collect();
        add(&mut page, &format!("All its tests: {}.\n\n", all.join(", ")));
    }
    page.push_str(TAIL);
    Ok(page)
}

impl Class {
    /// Whether a test is one of the class's.
    pub(super) fn owns(&self, test: &str) -> bool {
        test.strip_prefix(&self.name).is_some_and(|rest| rest.starts_with('_'))
    }
}

/// The names of all functions in the tree that may be tests: those whose names are sentences.
pub(super) fn tests() -> Result<BTreeSet<String>> {
    let mut grep = Command::new("git");
    grep.current_dir(sh::root()).args(["ls-files", "-co", "--exclude-standard", "*.rs"]);
    let mut names = BTreeSet::new();
    for file in sh::output(&mut grep)?.lines().filter(|file| sh::root().join(file).exists()) {
        let text =
            fs::read_to_string(sh::root().join(file)).with_context(|| format!("read {file}"))?;
        for (at, _) in text.match_indices("fn ") {
            let name: String = text[at + 3..]
                .chars()
                .take_while(|char| char.is_ascii_alphanumeric() || *char == '_')
                .collect();
            // Fewer words are no sentence.
            if name.matches('_').count() >= 3 {
                names.insert(name);
            }
        }
    }
    Ok(names)
}

fn add(page: &mut String, text: &str) {
    page.write_str(text).expect("a String takes everything");
}
