//! The tests that run in the guest: lists of cases of programs that also run on the host.
//!
//! ```text
//! cargo test -p integration --test guest [-- [LIST[::NAME]…] [--list]]
//! ```
//! As root. The guest is booted once for all lists; what cannot be had, QEMU or its disk, makes all of
//! them skipped, and says why.

use std::env;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::unistd::geteuid;

use super::disk::Run;
use super::image::Image;
use super::machine::Machine;
use super::{built, told};
use crate::budgets::binary::Judged;
use crate::debs::{Deb, Store};
use crate::engine::Engine;
use crate::runner::{Total, Verdict, indent, last_lines, say, words};
use crate::target;
use crate::wait::PATIENCE;

/// How long a list may take. On a quiet machine none needs half of it.
const LIMIT: Duration = Duration::from_secs(600);

/// The newest containerd and what its tests need beside it.
const ENGINES: [Deb; 3] = [Engine::V2.deb(), Deb::RUNC, Deb::BUSYBOX];

/// The programs that test programs look for where cargo puts them.
const PROGRAMS: [&str; 3] = ["containerd-shim-native-v2", "shim-runc", "shimctl"];

/// Cases of one program.
struct List {
    name: &'static str,
    program: &'static str,
    /// Before the cases' names.
    args: &'static [&'static str],
    /// In front of the name of each case.
    flag: &'static str,
    /// Which cases; a narrower choice takes their place.
    cases: &'static [&'static str],
    read: fn(&str) -> Vec<told::Case>,
    /// It runs when nobody chooses.
    is_usual: bool,
}

/// What is here bears on cgroups or systemd, or is quick. Without KVM a program starts some fifty
/// times slower, and each case under containerd starts its client twice at least: of these there are
/// only those that look at the container's cgroup. Two of the conformance suite's are left out that
/// give a program ten seconds for what takes it a fifth of one elsewhere. Both lists are for those who
/// choose them: with the others they take longer than all tests of the host, and `cli` has containerd
/// as well.
const LISTS: [List; 5] = [
    List {
        name: "cgroup",
        program: "shim_runc",
        args: &["--show-output"],
        flag: "",
        cases: &["engine::cgroup::kernel_tests"],
        read: told::lines,
        is_usual: true,
    },
    List {
        name: "engine",
        program: "engine",
        args: &[],
        flag: "",
        cases: &[],
        read: told::lines,
        is_usual: true,
    },
    List {
        name: "cli",
        program: "cli",
        args: &["--show-output"],
        flag: "",
        // The rest is the same on any cgroup, and runs on the host.
        cases: &[
            "containerd::",
            "exec::",
            "look::",
            "podman::",
            "rootless::",
            "security::",
            "systemd::",
        ],
        read: told::lines,
        is_usual: true,
    },
    List {
        name: "it",
        program: "it",
        args: &[],
        flag: "",
        cases: &[
            "engine2::limits::",
            "engine2::oom::",
            "engine2::metrics::",
            "engine2::view::a_container_is_in_the_cgroup_of_its_spec",
            "engine2::view::another_device_is_refused",
            "engine2::oci::a_cgroup_namespace_hides_the_path",
            "engine2::task::a_paused_task",
            "engine2::task::metrics",
            "engine2::task::every_process_of_the_container",
            "engine2::api::metrics_have_the_type",
            "engine2::api::limits_change",
            "engine2::exec::an_exec_shares",
        ],
        read: told::lines,
        is_usual: false,
    },
    List {
        name: "conform",
        program: "shimctl",
        args: &["conform", "--shim", "/bed/bin/containerd-shim-native-v2", "--report", "json"],
        flag: "--filter=",
        cases: &["stats.", "!stats.memory", "!stats.cpu", "update.", "pause.", "oom.", "kill."],
        read: told::report,
        is_usual: false,
    },
];

/// The `main` of the test executable.
#[must_use]
pub fn main() -> ExitCode {
    let chosen = chosen(&words(env::args().skip(1)));
    if env::args().any(|arg| arg == "--list") {
        chosen.iter().for_each(|(list, _)| say(&format!("guest::{}: test", list.name)));
        return ExitCode::SUCCESS;
    }
    let total = Total::default();
    match boot(&chosen) {
        Ok((mut guest, _run)) => {
            for (index, (list, cases)) in chosen.iter().enumerate() {
                if let Err(error) = run(&mut guest, list, cases, &total) {
                    let left = chosen[index..].iter().map(|(list, _)| list);
                    total.add_all(&names(left), Verdict::Failed, &format!("{error:#}"));
                    break;
                }
            }
        }
        Err(error) => {
            let (verdict, why) = match error.downcast_ref::<Absent>() {
                Some(absent) => (Verdict::Skipped, format!("NO GUEST: {:#}", absent.0)),
                None => (Verdict::Failed, format!("{error:#}")),
            };
            total.add_all(&names(chosen.iter().map(|(list, _)| list)), verdict, &why);
        }
    }
    total.close()
}

fn names<'a>(lists: impl Iterator<Item = &'a &'static List>) -> Vec<String> {
    lists.map(|list| format!("guest::{}", list.name)).collect()
}

/// Why there is no guest on this machine: a reason to skip, where all else is one to fail.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
struct Absent(anyhow::Error);

/// The lists that words ask for, each with the cases of it; the usual ones without words.
fn chosen(words: &[String]) -> Vec<(&'static List, Vec<String>)> {
    let own = |list: &'static List| list.cases.iter().map(|&case| case.to_owned()).collect();
    let wanted = |list: &'static List| {
        let of = |word: &String| match word.split_once("::") {
            Some((name, part)) => (name == list.name).then(|| Some(part.to_owned())),
            None => (word == list.name).then_some(None),
        };
        let parts: Vec<Option<String>> = words.iter().filter_map(of).collect();
        if parts.is_empty() && !(words.is_empty() && list.is_usual) {
            return None;
        }
        let narrower: Option<Vec<String>> = parts.into_iter().collect();
        Some((list, narrower.filter(|parts| !parts.is_empty()).unwrap_or_else(|| own(list))))
    };
    LISTS.iter().filter_map(wanted).collect()
}

/// Boots a guest with all that the lists need.
fn boot(chosen: &[(&'static List, Vec<String>)]) -> Result<(Machine, Run)> {
    let begun = Instant::now();
    let store = Store::open();
    let image = image(&store).map_err(Absent)?;
    say(&format!("the image is there after {:.0?}", begun.elapsed()));
    let run = Run::new()?;
    let mut programs = built::tests()?;
    programs.retain(|program| chosen.iter().any(|(list, _)| list.program == program.name));
    run.put_tests(&programs)?;
    let judged = Judged::choose()?;
    run.put_programs(&judged.dir, &PROGRAMS[..1])?;
    let own = target::profile_dir()?;
    run.put_programs(&own, &PROGRAMS[1..])?;
    for program in PROGRAMS {
        run.put(&own.join(program), &format!("target/debug/{program}"))?;
    }
    run.put_engines(&store, &ENGINES)?;
    let guest = Machine::boot(&image, &run.disk()?, run.dir())?;
    say(&format!("the guest is up after {:.0?}", begun.elapsed()));
    Ok((guest, run))
}

/// What makes a guest possible.
fn image(store: &Store) -> Result<Image> {
    ensure!(geteuid().is_root(), "it needs root, to make a system of packages");
    store.fetch(&ENGINES)?;
    Image::open(store)
}

/// Runs a list and counts its cases.
fn run(guest: &mut Machine, list: &List, cases: &[String], total: &Total) -> Result<()> {
    let begun = Instant::now();
    let mut bytes = Vec::new();
    // One stream: a case's words and its line belong together.
    let mut command = vec!["sh", "-c", "exec \"$@\" 2>&1", "sh", "env"];
    let patience = format!("{PATIENCE}=6");
    command.extend(["SHIM_ENGINES=/bed/engines", "SHIM_DIR=/bed/bin", &patience, list.program]);
    let cases: Vec<_> = cases.iter().map(|case| format!("{}{case}", list.flag)).collect();
    command.extend(list.args.iter().copied().chain(cases.iter().map(String::as_str)));
    let code = guest.run(&command, LIMIT, |_, more| bytes.extend_from_slice(more));
    let text = String::from_utf8_lossy(&bytes);
    let code = code.with_context(|| last_lines(&text, 40))?;
    let found = (list.read)(&text);
    for case in &found {
        let name = format!("guest::{}::{}", list.name, case.name);
        total.count(&name, case.verdict);
        match case.verdict {
            Verdict::Passed => say(&format!("test {name} ... ok")),
            Verdict::Skipped => say(&format!("test {name} ... SKIPPED: {}", case.why)),
            Verdict::Failed => say(&format!("test {name} ... FAILED\n{}", indent(&case.why))),
        }
    }
    let failed = found.iter().any(|case| case.verdict == Verdict::Failed);
    if found.is_empty() || (code != 0 && !failed) {
        let name = format!("guest::{}", list.name);
        total.count(&name, Verdict::Failed);
        let end = last_lines(&text, 40);
        say(&format!("test {name} ... FAILED: it ended with {code}\n{}", indent(&end)));
    }
    let took = begun.elapsed();
    say(&format!("{}: {} cases after {took:.0?}\n", list.name, found.len()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(words: &[&str], expect: &[(&str, &[&str])]) {
        let words: Vec<_> = words.iter().map(|&word| word.to_owned()).collect();
        let found = chosen(&words);
        let found: Vec<_> = found.iter().map(|(list, cases)| (list.name, cases.clone())).collect();
        let expect: Vec<_> = expect
            .iter()
            .map(|(name, cases)| (*name, cases.iter().map(|&case| case.to_owned()).collect()))
            .collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn a_word_chooses_a_list_or_a_part_of_one() {
        check(&["engine"], &[("engine", &[])]);
        check(&["cgroup"], &[("cgroup", LISTS[0].cases)]);
        check(&["engine::frozen", "cli"], &[("engine", &["frozen"]), ("cli", LISTS[2].cases)]);
        check(&["cli::a", "cli::b"], &[("cli", &["a", "b"])]);
        check(&["nothing"], &[]);
        check(&["conform"], &[("conform", LISTS[4].cases)]);
        let usual: Vec<_> = chosen(&[]).iter().map(|(list, _)| list.name).collect();
        assert_eq!(usual, ["cgroup", "engine", "cli"]);
    }
}
