//! The process: its streams, limits, user, privileges and program.

use std::{
    collections::{HashMap, hash_map::Entry},
    path::Path,
};

use oci_spec::runtime::{PosixRlimitType, Process};
use shim_core::{Error, Result};

use super::{
    Choices, Console, Draft, Inherited, Source, Start, capabilities::Sets, hooks, in_container,
    scheduling,
};
use crate::engine::{
    execute,
    seccomp::Filter,
    step::Step,
    wire::{Bytes, Text},
};

/// A resource limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    /// `RLIMIT_NOFILE` and kin.
    pub(crate) name: String,
    pub(crate) resource: u32,
    pub(crate) soft: u64,
    pub(crate) hard: u64,
}

/// The umask of a program whose spec has none, as with runc.
const UMASK: u32 = 0o022;

/// Plans the working directory: made where it is missing, as runc does.
pub(super) fn directory(draft: &mut Draft, process: &Process) -> Result<()> {
    let path = process.cwd();
    if !path.is_absolute() {
        return Err(Error::invalid(format!(
            "working directory {} is not absolute",
            path.display()
        )));
    }
    draft.step(Step::MakeDirectory { path: in_container(path)? });
    Ok(())
}

/// Plans the standard streams.
pub(super) fn streams(
    draft: &mut Draft,
    process: &Process,
    choices: Choices,
    console: Console,
) -> Result<()> {
    if !choices.terminal {
        let [stdin, stdout, stderr] = [0, 1, 2].map(|stream| draft.file(Source::Stream(stream)));
        draft.step(Step::PlaceStreams { stdin, stdout, stderr });
        return Ok(());
    }
    let size = process.console_size().unwrap_or_default();
    let limit = u64::from(u16::MAX);
    if size.height() > limit || size.width() > limit {
        return Err(Error::invalid("the console is larger than a terminal can be"));
    }
    draft.step(Step::OpenTerminal {
        uid: process.user().uid().into(),
        height: size.height(),
        width: size.width(),
        console: u64::from(console == Console::Bound),
    });
    Ok(())
}

/// Plans everything from the limits to the program. The order is runc's: what needs privileges
/// first, then the user, then the capabilities, and the seccomp filter as late as it can be.
pub(super) fn run(
    draft: &mut Draft,
    process: &Process,
    inherited: &Inherited,
    choices: Choices,
    start: Start<'_>,
) -> Result<()> {
    limits(draft, process)?;
    scheduling::all(draft, process, inherited, start)?;
    let user = process.user();
    draft.step(Step::SetUmask { mask: user.umask().unwrap_or(UMASK).into() });
    let no_new_privileges = process.no_new_privileges() == Some(true);
    let filter = inherited.filter.as_deref().map(Filter::step);
    if no_new_privileges {
        draft.step(Step::ForbidNewPrivileges {});
    } else if let Some(filter) = filter.clone() {
        // Without no_new_privs it takes a privilege that is gone soon.
        draft.step(filter);
    }
    let sets = Sets::of(process);
    for name in sets.idle_ambient() {
        draft.warn(format!("capability {name} is not permitted and inheritable, so not ambient"));
    }
    draft.step(Step::BoundCapabilities { bounding: sets.bounding });
    let environment = environment(process)?;
    if !environment.iter().any(|variable| variable.to_string().starts_with("HOME=")) {
        draft.step(Step::FindHome { uid: user.uid().into() });
    }
    // As it is written: `..` behind a symlink is where the kernel says.
    let cwd = Text::new(process.cwd())?;
    if !process.cwd().is_absolute() {
        return Err(Error::invalid(format!("working directory {cwd} is not absolute")));
    }
    draft.step(Step::Enter { path: cwd.clone() });
    let groups: Vec<u64> =
        user.additional_gids().iter().flatten().map(|gid| u64::from(*gid)).collect();
    if groups.len() > execute::GROUPS {
        return Err(Error::invalid("the process has too many groups"));
    }
    draft.step(Step::SetIds { uid: user.uid().into(), gid: user.gid().into(), groups });
    draft.step(Step::EnterAgain { path: cwd });
    draft.step(sets.step());
    draft.step(Step::CloseFiles { from: hooks::FIRST_FILE + u64::from(choices.kept_files) });
    let (find, arguments) = program(process, &environment)?;
    draft.step(find);
    draft.plan.steps.extend(filter.filter(|_| no_new_privileges));
    if let Start::Awaited(hooks) = start {
        hooks.start(draft, &environment, choices.starter)?;
    }
    draft.step(Step::Execute { arguments, environment });
    Ok(())
}

impl Filter {
    fn step(&self) -> Step {
        let mut program = Vec::with_capacity(8 * self.program.len());
        for instruction in &self.program {
            program.extend_from_slice(&instruction.code.to_ne_bytes());
            program.extend_from_slice(&[instruction.jt, instruction.jf]);
            program.extend_from_slice(&instruction.k.to_ne_bytes());
        }
        Step::FilterCalls { program: Bytes(program), flags: self.flags.into() }
    }
}

fn limits(draft: &mut Draft, process: &Process) -> Result<()> {
    for limit in process.rlimits().iter().flatten() {
        let name = limit.typ().to_string();
        let resource = resource(limit.typ());
        let (soft, hard) = (limit.soft(), limit.hard());
        if draft.plan.limits.iter().any(|known| known.resource == resource) {
            return Err(Error::invalid(format!("{name} is listed twice")));
        }
        let number = u64::from(resource);
        draft.step(Step::SetLimit { name: Text::new(&name)?, resource: number, soft, hard });
        draft.plan.limits.push(Limit { name, resource, soft, hard });
    }
    Ok(())
}

fn resource(kind: PosixRlimitType) -> u32 {
    match kind {
        PosixRlimitType::RlimitCpu => 0,
        PosixRlimitType::RlimitFsize => 1,
        PosixRlimitType::RlimitData => 2,
        PosixRlimitType::RlimitStack => 3,
        PosixRlimitType::RlimitCore => 4,
        PosixRlimitType::RlimitRss => 5,
        PosixRlimitType::RlimitNproc => 6,
        PosixRlimitType::RlimitNofile => 7,
        PosixRlimitType::RlimitMemlock => 8,
        PosixRlimitType::RlimitAs => 9,
        PosixRlimitType::RlimitLocks => 10,
        PosixRlimitType::RlimitSigpending => 11,
        PosixRlimitType::RlimitMsgqueue => 12,
        PosixRlimitType::RlimitNice => 13,
        PosixRlimitType::RlimitRtprio => 14,
        PosixRlimitType::RlimitRttime => 15,
    }
}

/// The environment, of each variable the last value, in the order of the first ones.
fn environment(process: &Process) -> Result<Vec<Text>> {
    let mut all: Vec<&String> = Vec::new();
    let mut places = HashMap::new();
    for variable in process.env().iter().flatten() {
        let Some((name, _)) = variable.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            return Err(Error::invalid(format!("{variable:?} is no environment variable")));
        };
        match places.entry(name) {
            Entry::Occupied(place) => all[*place.get()] = variable,
            Entry::Vacant(place) => {
                place.insert(all.len());
                all.push(variable);
            }
        }
    }
    // An empty home is as good as none.
    all.into_iter().filter(|variable| *variable != "HOME=").map(Text::new).collect()
}

/// The step that finds the program, and its arguments.
fn program(process: &Process, environment: &[Text]) -> Result<(Step, Vec<Text>)> {
    let arguments = process.args().as_deref().unwrap_or_default();
    let Some(name) = arguments.first() else {
        return Err(Error::invalid("the process has no arguments, so no program"));
    };
    let path = environment
        .iter()
        .find_map(|variable| variable.to_string().strip_prefix("PATH=").map(str::to_owned));
    let candidates = candidates(name, path.as_deref().unwrap_or_default());
    let candidates = candidates.into_iter().map(Text::new).collect::<Result<_>>()?;
    let find = Step::FindProgram { name: Text::new(name)?, candidates };
    Ok((find, arguments.iter().map(Text::new).collect::<Result<_>>()?))
}

/// Where a program may be. Directories that are not absolute are left out: Go refuses what it
/// finds there.
fn candidates(name: &str, path: &str) -> Vec<String> {
    if name.contains('/') {
        return vec![name.to_owned()];
    }
    if name.is_empty() {
        return Vec::new();
    }
    let directories = path.split(':').filter(|directory| Path::new(directory).is_absolute());
    directories.map(|directory| format!("{}/{name}", directory.trim_end_matches('/'))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_looked_for_in_absolute_directories() {
        assert_eq!(candidates("sh", "/bin:.::/usr/bin/"), ["/bin/sh", "/usr/bin/sh"]);
        assert_eq!(candidates("./sh", "/bin"), ["./sh"]);
        assert!(candidates("", "/bin").is_empty());
        assert!(candidates("sh", "").is_empty());
    }

    #[test]
    fn the_last_value_of_a_variable_wins() {
        let mut process = Process::default();
        let env = ["A=1", "HOME=", "B=2", "A=3"].map(str::to_owned);
        process.set_env(Some(env.to_vec()));
        let all: Vec<_> = environment(&process).unwrap().iter().map(Text::to_string).collect();
        assert_eq!(all, ["A=3", "B=2"]);
        for bad in ["A", "=1"] {
            process.set_env(Some(vec![bad.to_owned()]));
            assert!(environment(&process).is_err(), "{bad}");
        }
    }
}
