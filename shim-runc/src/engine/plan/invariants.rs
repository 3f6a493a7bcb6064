//! What is true of every plan, whatever its spec says. For tests and fuzzers.

use std::path::{Component, Path};

use oci_spec::runtime::Spec;
use shim_core::{Result, model::Bundle};

use super::{
    Asked, Choices, FIRST_SLOT, Facts, Hierarchy, Hooks, Inherited, Modules, Namespaces, Plan,
    check,
};
use crate::engine::{
    execute::SOCKET,
    seccomp::Filter,
    step::{Order, Step},
    wire::{Reader, Slot, Text},
};

/// Plans a spec in several ways, twice each, and checks what comes of it.
///
/// # Errors
/// Why there is no plan.
///
/// # Panics
/// When a plan is not as it has to be.
pub(crate) fn check_all(spec: &Spec) -> Result<()> {
    check(spec)?;
    let hierarchy = |name: &str| Hierarchy {
        name: name.to_owned(),
        options: name.to_owned(),
        directory: Path::new("/sys/fs/cgroup").join(name).join("pod/c1"),
    };
    let v1 = vec![hierarchy("cpu,cpuacct"), hierarchy("systemd")];
    let v1 = Facts { kcore: true, hierarchies: v1, ..Facts::default() };
    let mounts = vec!["/proc".into(), "/sys".into()];
    let v2 = Facts { is_unified: true, system_mounts: mounts, ..Facts::default() };
    let plain = Choices::default();
    let other = Choices { no_pivot_root: true, terminal: true, ..plain };
    for (facts, choices) in [(&v1, plain), (&v2, other)] {
        let plan = container(spec, facts, choices)?;
        check_plan(&plan, &container(spec, facts, choices)?);
        check_container(&plan, spec);
    }
    let Some(process) = spec.process() else { return Ok(()) };
    let (namespaces, inherited) = (Namespaces::of(spec)?, inherited(spec)?);
    let added = || Plan::process(process, &namespaces, &inherited, plain);
    let plan = added()?;
    check_plan(&plan, &added()?);
    check_program(&plan, process.no_new_privileges() == Some(true));
    Ok(())
}

fn inherited(spec: &Spec) -> Result<Inherited> {
    // Any filter will do: what counts is where it stands.
    let filter = Filter { program: Vec::new(), flags: 0 };
    let modules = Modules { has_apparmor: true, has_selinux: true };
    let keyring = Some("_ses.c1".to_owned());
    Inherited::of(spec, Some(filter.into()), None, None, modules, keyring)
}

fn container(spec: &Spec, facts: &Facts, choices: Choices) -> Result<Plan> {
    let mut plan = Plan::container(&Asked {
        spec,
        bundle: &Bundle::new("/bundle")?,
        namespaces: &Namespaces::of(spec)?,
        inherited: &inherited(spec)?,
        hooks: &Hooks::of(spec)?,
        choices,
        facts,
    })?;
    plan.enter_cgroup(["memory", "pids"].into_iter(), facts.is_unified)?;
    Ok(plan)
}

/// What is true of a container's plan and of an added process's, which has been made twice.
fn check_plan(plan: &Plan, again: &Plan) {
    assert_eq!(plan.steps, again.steps, "planning is not deterministic");
    assert_eq!(plan.sources, again.sources, "planning is not deterministic");
    let bytes = plan.bytes();
    let mut reader = Reader::new(&bytes);
    let mut at = 0;
    for step in &plan.steps {
        let mut own = Vec::new();
        step.write(&mut own);
        assert_eq!(bytes[at..at + own.len()], own, "{step}");
        let order = Order::read(&mut reader).unwrap_or_else(|_| panic!("{step} is not read"));
        at += own.len();
        assert_eq!(reader.left(), bytes.len() - at, "{step} is read in part");
        assert_eq!(name(&order), name(step));
        targets(step).into_iter().for_each(assert_plain);
        let room = FIRST_SLOT + plan.sources.len();
        let files = files(step);
        assert!(files.iter().all(|slot| (SOCKET.0..room).contains(&slot.0)), "{step}: {files:?}");
    }
    assert_eq!(reader.left(), 0);
}

/// The variant's name alone.
fn name(of: &impl std::fmt::Debug) -> String {
    let text = format!("{of:?}");
    text.split([' ', '{']).next().unwrap_or_default().to_owned()
}

/// The places in the container that a step looks up.
fn targets(step: &Step) -> Vec<&Text> {
    match step {
        Step::Mount { target, .. }
        | Step::MountWhole { target, .. }
        | Step::Bind { target, .. }
        | Step::Remount { target, .. } => vec![target],
        Step::MakeDirectory { path }
        | Step::MakeDevice { path, .. }
        | Step::BindDevice { path, .. }
        | Step::Link { path, .. }
        | Step::Mask { path, .. }
        | Step::Protect { path }
        | Step::Seal { path } => vec![path],
        Step::SetSysctl { file, .. } => {
            let path = file.as_path();
            let is_plain = |part| matches!(part, Component::Normal(_));
            assert!(path.starts_with("sys") && path.components().all(is_plain), "{file}");
            Vec::new()
        }
        _ => Vec::new(),
    }
}

fn assert_plain(path: &Text) {
    let mut parts = path.as_path().components();
    assert_eq!(parts.next(), Some(Component::RootDir), "{path} is not absolute");
    assert!(parts.all(|part| matches!(part, Component::Normal(_))), "{path} is not plain");
    let text = path.to_string();
    assert!(!text.split('/').any(|name| name == "." || name == ".."), "{path} is not plain");
}

fn files(step: &Step) -> Vec<Slot> {
    match step {
        Step::JoinNamespace { namespace: slot, .. }
        | Step::JoinContainer { pidfd: slot, .. }
        | Step::AttachRoot { tree: slot, .. }
        | Step::Bind { tree: slot, .. }
        | Step::BindDevice { tree: slot, .. }
        | Step::Mask { null: slot, .. }
        | Step::RunHook { output: slot, .. } => vec![*slot],
        Step::PlaceStreams { stdin, stdout, stderr } => vec![*stdin, *stdout, *stderr],
        Step::AwaitStarter { go, answer, state } => {
            [Some(*go), Some(*answer), *state].into_iter().flatten().collect()
        }
        _ => Vec::new(),
    }
}

/// The order of a container's plan, and how much it may open.
fn check_container(plan: &Plan, spec: &Spec) {
    let linux = spec.linux().as_ref();
    let count = |many: Option<usize>| many.unwrap_or_default();
    let mounts = count(spec.mounts().as_ref().map(Vec::len));
    let devices = count(linux.and_then(|linux| linux.devices().as_ref()).map(Vec::len));
    // Each mount a file, one of cgroups two; the usual devices; namespaces, streams and the rest.
    let most = 2 * mounts + devices + 6 + 8 + 10;
    assert!(plan.sources.len() <= most, "{} files, more than {most}", plan.sources.len());

    let root = only(plan, "AttachRoot");
    let change = plan
        .steps
        .iter()
        .position(|step| matches!(step, Step::PivotRoot {} | Step::ChangeRoot {}))
        .expect("every container changes its root");
    let mounting = ["Mount", "MountWhole", "Bind", "Remount", "MakeDevice", "BindDevice", "Link"];
    let covering = ["Mask", "Protect"];
    let joining = ["JoinNamespace", "NewCgroupNamespace", "BecomeRoot", "JoinCgroup", "SetSysctl"];
    all_between(plan, &joining, 0, root);
    all_between(plan, &mounting, root, change);
    all_between(plan, &covering, root, change);
    if let Some(first) = first(plan, &covering) {
        all_between(plan, &mounting, root, first);
    }
    let ids = only(plan, "SetIds");
    all_between(plan, &["MakeDirectory"], root, ids);
    all_between(plan, &["Seal", "PropagateRoot", "SealRoot"], change, ids);
    check_program(
        plan,
        spec.process().as_ref().and_then(|one| one.no_new_privileges()) == Some(true),
    );
}

/// The order from the privileges to the program.
fn check_program(plan: &Plan, no_new_privileges: bool) {
    let end = plan.steps.len() - 1;
    let order = [
        "BoundCapabilities",
        "Enter",
        "SetIds",
        "EnterAgain",
        "SetCapabilities",
        "CloseFiles",
        "FindProgram",
        "Execute",
    ];
    let places = order.map(|name| only(plan, name));
    assert!(places.is_sorted(), "{places:?}");
    assert_eq!(places[order.len() - 1], end, "something comes after the program");
    let filter = only(plan, "FilterCalls");
    if no_new_privileges {
        assert!(only(plan, "ForbidNewPrivileges") < filter);
        let after = &plan.steps[filter + 1..];
        let allowed = ["AwaitHooks", "AwaitStart", "AwaitStarter", "RunHook", "Execute"];
        assert!(after.iter().all(|step| allowed.contains(&name(step).as_str())), "{after:?}");
    } else {
        assert!(filter < places[0], "the filter needs a privilege");
    }
    all_between(plan, &["JoinContainer", "ApplyProfile", "JoinKeyring", "SetLimit"], 0, places[0]);
}

fn only(plan: &Plan, wanted: &str) -> usize {
    let mut found = (0..).zip(&plan.steps).filter(|(_, step)| name(*step) == wanted);
    let (at, _) = found.next().unwrap_or_else(|| panic!("no {wanted}"));
    assert!(found.next().is_none(), "{wanted} twice");
    at
}

fn first(plan: &Plan, wanted: &[&str]) -> Option<usize> {
    plan.steps.iter().position(|step| wanted.contains(&name(step).as_str()))
}

/// All steps of these kinds stand between two others.
fn all_between(plan: &Plan, wanted: &[&str], from: usize, to: usize) {
    for (at, step) in plan.steps.iter().enumerate() {
        if wanted.contains(&name(step).as_str()) {
            assert!((from..=to).contains(&at), "{step} at {at}, not from {from} to {to}");
        }
    }
}
