//! Command lines, as runc has them: the flags that all of its kind understand, and no others.

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

use shim_core::{
    Checkpoint,
    model::{ContainerId, Signal},
};

use super::runtime::Runtime;
use crate::options::Options;

/// A verb with its flags and operands.
pub(super) type Line = Vec<OsString>;

/// What is given each time a container is made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Making {
    no_pivot_root: bool,
    no_new_keyring: bool,
    /// Where criu works while it restores.
    work_path: Option<PathBuf>,
}

/// Where a command that leaves a process behind tells what it has made.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) pid_file: PathBuf,
    pub(super) console: Option<PathBuf>,
}

impl Making {
    pub(super) fn of(options: &Options) -> Self {
        Self {
            no_pivot_root: options.no_pivot_root,
            no_new_keyring: options.no_new_keyring,
            work_path: options.criu_work_path.clone(),
        }
    }

    fn flags(&self, line: &mut Line) {
        flag(line, self.no_pivot_root, "--no-pivot");
        flag(line, self.no_new_keyring, "--no-new-keyring");
    }
}

impl Told {
    fn flags(&self, line: &mut Line) {
        option(line, "--pid-file", &self.pid_file);
        if let Some(console) = &self.console {
            option(line, "--console-socket", console);
        }
    }
}

/// What stands before every verb.
pub(super) fn global(runtime: &Runtime, log: &Path) -> Line {
    let mut line = Line::new();
    option(&mut line, "--root", &runtime.root);
    option(&mut line, "--log", log);
    option(&mut line, "--log-format", "json");
    flag(&mut line, runtime.systemd_cgroup, "--systemd-cgroup");
    // A flag of runc until 1.1, which nobody else has: only who asks for it has it passed on.
    if !runtime.criu.is_empty() {
        option(&mut line, "--criu", &runtime.criu);
    }
    line.extend(runtime.flags.iter().map(Into::into));
    line
}

pub(super) fn create(id: &ContainerId, bundle: &Path, making: &Making, told: &Told) -> Line {
    let mut line = verb("create");
    option(&mut line, "--bundle", bundle);
    told.flags(&mut line);
    making.flags(&mut line);
    to(line, id)
}

pub(super) fn start(id: &ContainerId) -> Line {
    to(verb("start"), id)
}

pub(super) fn exec(
    id: &ContainerId,
    process: &Path,
    inner_pid: Option<&Path>,
    told: &Told,
) -> Line {
    let mut line = verb("exec");
    option(&mut line, "--process", process);
    line.push("--detach".into());
    told.flags(&mut line);
    // Of runsc alone, which has pids of its own.
    if let Some(inner_pid) = inner_pid {
        option(&mut line, "--internal-pid-file", inner_pid);
    }
    to(line, id)
}

pub(super) fn kill(id: &ContainerId, signal: Signal) -> Line {
    signalled(to(verb("kill"), id), signal)
}

pub(super) fn kill_all(id: &ContainerId, signal: Signal) -> Line {
    let mut line = verb("kill");
    line.push("--all".into());
    signalled(to(line, id), signal)
}

/// Signals an exec of runsc by the pid that it has in there.
pub(super) fn kill_inner(id: &ContainerId, exec: u32, signal: Signal) -> Line {
    let mut line = verb("kill");
    option(&mut line, "--pid", exec.to_string());
    signalled(to(line, id), signal)
}

pub(super) fn delete(id: &ContainerId) -> Line {
    to(verb("delete"), id)
}

pub(super) fn force_delete(id: &ContainerId) -> Line {
    let mut line = verb("delete");
    line.push("--force".into());
    to(line, id)
}

pub(super) fn pause(id: &ContainerId) -> Line {
    to(verb("pause"), id)
}

pub(super) fn resume(id: &ContainerId) -> Line {
    to(verb("resume"), id)
}

/// The resources come on stdin, as JSON.
pub(super) fn update(id: &ContainerId) -> Line {
    let mut line = verb("update");
    option(&mut line, "--resources", "-");
    to(line, id)
}

pub(super) fn checkpoint(id: &ContainerId, asked: &Checkpoint) -> Line {
    let mut line = verb("checkpoint");
    option(&mut line, "--image-path", &asked.path);
    for (name, path) in [("--work-path", &asked.work_path), ("--parent-path", &asked.parent_path)] {
        if let Some(path) = path {
            option(&mut line, name, path);
        }
    }
    flag(&mut line, !asked.exit, "--leave-running");
    flag(&mut line, asked.open_tcp, "--tcp-established");
    flag(&mut line, asked.external_unix_sockets, "--ext-unix-sk");
    flag(&mut line, asked.terminal, "--shell-job");
    flag(&mut line, asked.file_locks, "--file-locks");
    for namespace in &asked.empty_namespaces {
        option(&mut line, "--empty-ns", namespace);
    }
    if let Some(mode) = &asked.cgroups_mode {
        option(&mut line, "--manage-cgroups-mode", mode);
    }
    to(line, id)
}

pub(super) fn restore(
    id: &ContainerId,
    bundle: &Path,
    image: &Path,
    making: &Making,
    told: &Told,
) -> Line {
    let mut line = verb("restore");
    line.push("--detach".into());
    option(&mut line, "--bundle", bundle);
    option(&mut line, "--image-path", image);
    if let Some(work) = &making.work_path {
        option(&mut line, "--work-path", work);
    }
    told.flags(&mut line);
    flag(&mut line, making.no_pivot_root, "--no-pivot");
    to(line, id)
}

/// Tells how a container in the process of another has ended, as JSON. Of runsc alone, as the next.
pub(super) fn wait(id: &ContainerId) -> Line {
    to(verb("wait"), id)
}

/// Counts what such a container uses, as JSON.
pub(super) fn events(id: &ContainerId) -> Line {
    let mut line = verb("events");
    line.push("--stats".into());
    to(line, id)
}

pub(super) fn features() -> Line {
    verb("features")
}

fn verb(name: &str) -> Line {
    vec![name.into()]
}

fn to(mut line: Line, id: &ContainerId) -> Line {
    line.push(id.as_str().into());
    line
}

fn signalled(mut line: Line, signal: Signal) -> Line {
    line.push(signal.number().to_string().into());
    line
}

fn flag(line: &mut Line, is_set: bool, name: &str) {
    if is_set {
        line.push(name.into());
    }
}

fn option(line: &mut Line, name: &str, value: impl AsRef<OsStr>) {
    line.push(name.into());
    line.push(value.as_ref().to_owned());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> ContainerId {
        ContainerId::parse("c1").unwrap()
    }

    fn check(line: &Line, expected: &str) {
        let text: Vec<_> = line.iter().map(|word| word.to_str().unwrap()).collect();
        assert_eq!(text.join(" "), expected);
    }

    fn told(console: Option<&str>) -> Told {
        Told { pid_file: "/b/p".into(), console: console.map(PathBuf::from) }
    }

    #[test]
    fn what_stands_before_a_verb() {
        let mut runtime = Runtime {
            binary: "/bin/runc".into(),
            root: "/run/r/ns".into(),
            systemd_cgroup: false,
            criu: String::new(),
            flags: Vec::new(),
        };
        check(
            &global(&runtime, Path::new("/b/l")),
            "--root /run/r/ns --log /b/l --log-format json",
        );
        runtime.systemd_cgroup = true;
        runtime.criu = "/c".to_owned();
        runtime.flags = vec!["--platform=systrap".to_owned()];
        let expected = "--root /run/r/ns --log /b/l --log-format json --systemd-cgroup --criu /c \
                        --platform=systrap";
        check(&global(&runtime, Path::new("/b/l")), expected);
    }

    #[test]
    fn a_container_is_made() {
        let (bundle, plain) = (Path::new("/b"), Making::default());
        let line = create(&id(), bundle, &plain, &told(None));
        check(&line, "create --bundle /b --pid-file /b/p c1");
        let making = Making { no_pivot_root: true, no_new_keyring: true, work_path: None };
        let line = create(&id(), bundle, &making, &told(Some("/s")));
        let expected = "create --bundle /b --pid-file /b/p --console-socket /s --no-pivot \
                        --no-new-keyring c1";
        check(&line, expected);
        let making = Making { work_path: Some("/w".into()), ..making };
        let line = restore(&id(), bundle, Path::new("/i"), &making, &told(None));
        let expected = "restore --detach --bundle /b --image-path /i --work-path /w --pid-file \
                        /b/p --no-pivot c1";
        check(&line, expected);
    }

    #[test]
    fn a_process_is_added() {
        let process = Path::new("/b/e.json");
        let line = exec(&id(), process, None, &told(Some("/s")));
        let expected = "exec --process /b/e.json --detach --pid-file /b/p --console-socket /s c1";
        check(&line, expected);
        let line = exec(&id(), process, Some(Path::new("/b/i")), &told(None));
        let expected =
            "exec --process /b/e.json --detach --pid-file /b/p --internal-pid-file /b/i c1";
        check(&line, expected);
    }

    #[test]
    fn signals_go_by_number() {
        check(&kill(&id(), Signal::KILL), "kill c1 9");
        check(&kill_all(&id(), Signal::TERM), "kill --all c1 15");
        check(&kill_inner(&id(), 7, Signal::TERM), "kill --pid 7 c1 15");
    }

    #[test]
    fn what_takes_an_id_alone() {
        check(&start(&id()), "start c1");
        check(&delete(&id()), "delete c1");
        check(&force_delete(&id()), "delete --force c1");
        check(&pause(&id()), "pause c1");
        check(&resume(&id()), "resume c1");
        check(&update(&id()), "update --resources - c1");
        check(&wait(&id()), "wait c1");
        check(&events(&id()), "events --stats c1");
        check(&features(), "features");
    }

    #[test]
    fn a_checkpoint_has_criu_s_options() {
        let mut asked = Checkpoint { path: "/i".into(), ..Checkpoint::default() };
        check(&checkpoint(&id(), &asked), "checkpoint --image-path /i --leave-running c1");
        asked = Checkpoint {
            exit: true,
            open_tcp: true,
            external_unix_sockets: true,
            terminal: true,
            file_locks: true,
            empty_namespaces: vec!["network".to_owned()],
            cgroups_mode: Some("soft".to_owned()),
            work_path: Some("/w".into()),
            parent_path: Some("../p".into()),
            ..asked
        };
        let expected = "checkpoint --image-path /i --work-path /w --parent-path ../p \
                        --tcp-established --ext-unix-sk --shell-job --file-locks --empty-ns \
                        network --manage-cgroups-mode soft c1";
        check(&checkpoint(&id(), &asked), expected);
    }
}
