//! Containers that another OCI runtime makes, each with every runtime that there is.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use anyhow::{Result, ensure};
use integration::cgroups::{self, Value};
use integration::client::{Client, Streams, Target};
use integration::container::{Container, PROMPT};
use integration::debs::{Deb, Patched, Store};
use integration::folder::Folder;
use integration::lane::Lane;
use integration::procs;
use integration::runner::Skip;
use integration::session::Session;
use integration::wait::{self, SOON};
use nix::sys::signal::Signal;
use serde_json::json;
use shim_protos::cgroups_v1::Metrics;
use shim_protos::protobuf::Message;

/// Lists each test once a runtime.
macro_rules! of_each_runtime {
    ($($runtime:ident)*: $names:tt) => {
        $(of_one_runtime!($runtime: $names);)*
    };
}

macro_rules! of_one_runtime {
    ($runtime:ident: [$($name:ident)*]) => {
        pub(crate) mod $runtime {
            //! The tests of this file with one runtime.

            use super::*;

            integration::tests![$($name),*];

            $(fn $name(lane: &Lane) -> Result<()> {
                super::$name(lane, &Driven::new(lane, stringify!($runtime))?)
            })*
        }
    };
}

of_each_runtime!(runc crun: [
    a_whole_life
    execs_come_and_go
    terminals_work
    a_paused_container_is_killed
    limits_are_changed_and_use_is_counted
    nothing_is_left_when_the_shim_is_killed
    what_the_runtime_says_is_told
    a_runtime_that_hangs_keeps_nobody_from_killing
    a_runtime_that_is_killed_leaves_nothing
]);
of_each_runtime!(runsc: [
    a_whole_life
    execs_come_and_go
    terminals_work
    a_paused_container_is_killed
    nothing_is_left_when_the_shim_is_killed
    what_the_runtime_says_is_told
    a_runtime_that_hangs_keeps_nobody_from_killing
]);

integration::tests![
    a_binary_that_is_missing_is_named_with_its_option,
    options_come_in_runcs_own_message,
    a_pod_in_one_process_has_several_containers,
    a_terminal_in_a_shared_process_works,
    the_end_of_a_sandbox_is_that_of_all_in_it,
    nothing_of_a_shared_process_is_left_when_the_shim_is_killed,
];

const SLEEP: [&str; 2] = ["sleep", "1000"];

/// A runtime, by a script that calls it as this machine needs it.
struct Driven {
    name: &'static str,
    folder: Folder,
}

impl Driven {
    fn new(lane: &Lane, name: &'static str) -> Result<Self> {
        lane.go_cannot("its options are of another kind")?;
        let store = Store::open();
        let found = match name {
            "crun" => Patched::CRUN.fetched(&store),
            "runsc" => store.unpacked(Deb::RUNSC).map(|dir| dir.join("usr/bin/runsc")),
            _ => store.unpacked(Deb::RUNC).map(|dir| dir.join("usr/sbin/runc")),
        };
        let path = found.map_err(|error| Skip(format!("{error:#}")))?.display().to_string();
        let folder = lane.folder()?;
        let call = match name {
            // It takes no host that has controllers in a unified hierarchy beside version 1.
            "crun" => format!(
                "exec unshare -m sh -c 'umount -n /sys/fs/cgroup/unified 2> /dev/null; \
                 exec {path} \"$@\"' crun \"$@\""
            ),
            "runsc" => format!("exec {path} --platform=systrap --network=none \"$@\""),
            _ => format!("exec {path} \"$@\""),
        };
        let driven = Self { name, folder };
        driven.script("runtime", &call)?;
        driven.options("runtime")?;
        Ok(driven)
    }

    /// Writes a script, which is a runtime to the shim.
    fn script(&self, name: &str, lines: &str) -> Result<()> {
        let path = self.folder.join(name);
        fs::write(&path, format!("#!/bin/sh\n{lines}\n"))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(())
    }

    /// Has the runtime do something else where its verb is the given one.
    fn wrap(&self, verb: &str, instead: &str) -> Result<()> {
        let real = self.folder.join("runtime");
        let script = format!("case \" $* \" in *' {verb} '*) {instead};; esac\nexec {real} \"$@\"");
        self.script("wrapped", &script)?;
        self.options("wrapped")
    }

    fn options(&self, binary: &str) -> Result<()> {
        let (binary, state) = (self.folder.join(binary), self.folder.join("state"));
        let text = format!("BinaryName = {binary:?}\nRoot = {state:?}\n");
        Ok(fs::write(self.folder.join("options.toml"), text)?)
    }

    fn path(&self) -> String {
        self.folder.join("options.toml")
    }

    fn is_sandbox(&self) -> bool {
        self.name == "runsc"
    }

    /// A container that sleeps.
    fn sleeper(&self, lane: &Lane, flags: &[&str]) -> Result<Container> {
        let path = self.path();
        let own = ["--null-io", "--runtime-config-path", &path];
        let container = lane.start(&[&own, flags].concat(), &SLEEP)?;
        if !self.is_sandbox() {
            container.settle()?;
        }
        Ok(container)
    }
}

impl Drop for Driven {
    fn drop(&mut self) {
        // crun makes it, whatever the options say about its state.
        let _ = fs::remove_dir_all("/run/crun");
    }
}

fn a_whole_life(lane: &Lane, driven: &Driven) -> Result<()> {
    let path = driven.path();
    let flags = ["--runtime-config-path", path.as_str()];
    assert_eq!(lane.output(&flags, &["echo", "hello"])?, "hello\n");
    for code in [0, 7, 255] {
        let output = lane.run(&flags, &["sh", "-c", &format!("exit {code}")])?;
        assert_eq!(output.status, code, "{}", output.stderr);
    }
    let container = driven.sleeper(lane, &[])?;
    // It was made in the place that the options name, and by nobody else.
    let state = fs::read_dir(driven.folder.join(&format!("state/{}", lane.mark())))?;
    let mut names =
        state.flatten().map(|entry| entry.file_name().into_string().unwrap_or_default());
    assert!(names.any(|name| name.starts_with(container.id())));
    assert_eq!(container.remove()?, 137);
    Ok(())
}

fn execs_come_and_go(lane: &Lane, driven: &Driven) -> Result<()> {
    let container = driven.sleeper(lane, &[])?;
    for code in [0, 4, 255] {
        assert_eq!(container.exec(&["sh", "-c", &format!("exit {code}")])?.status, code);
    }
    assert_eq!(container.output(&[], &["echo", "there"])?, "there\n");
    let missing = container.exec(&["/no/such/program"])?;
    assert_ne!(missing.status, 0);
    assert!(missing.stderr.contains("/no/such/program"), "{}", missing.stderr);
    container.exec_in_background(&["sleep", "2000"])?;
    // The end of the container is the end of that, too.
    assert_eq!(container.remove()?, 137);
    Ok(())
}

/// Talks to a shell on a terminal.
fn check_terminal(mut session: Session) -> Result<()> {
    session.expect("#", PROMPT)?;
    wait::until("the terminal's size", PROMPT, || {
        session.send("stty size\n")?;
        let written = session.written();
        ensure!(written.contains("\n24 81\r"), "{written:?}");
        Ok(())
    })?;
    session.send("exit 42\n")?;
    assert_eq!(session.finish(PROMPT)?.status, 42);
    Ok(())
}

fn terminals_work(lane: &Lane, driven: &Driven) -> Result<()> {
    let (name, path) = (lane.name(), driven.path());
    let flags = ["--rm", "--tty", "--runtime-config-path", &path];
    let args = lane.run_command(&flags, &name, &["sh"]);
    check_terminal(lane.ctr().start_on_terminal(&args, 24, 81)?)?;
    let container = driven.sleeper(lane, &[])?;
    check_terminal(container.start_exec_on_terminal(&["sh"], 24, 81)?)?;
    container.remove()?;
    Ok(())
}

fn a_paused_container_is_killed(lane: &Lane, driven: &Driven) -> Result<()> {
    let container = driven.sleeper(lane, &[])?;
    container.task(&["pause"])?;
    assert_eq!(container.status()?.as_deref(), Some("PAUSED"));
    container.task(&["resume"])?;
    assert_eq!(container.exec(&["true"])?.status, 0);
    container.task(&["pause"])?;
    assert_eq!(container.remove()?, 137);
    Ok(())
}

fn limits_are_changed_and_use_is_counted(lane: &Lane, driven: &Driven) -> Result<()> {
    const LIMIT: u64 = 48 << 20;
    let container = driven.sleeper(lane, &["--memory-limit", "33554432"])?;
    let pid = container.pid()?;
    assert_eq!(cgroups::read(pid, Value::MemoryLimit)?, 32 << 20);
    lane.talk(async |client| {
        let id = container.id();
        client.update(id, &json!({ "memory": { "limit": LIMIT } })).await?;
        let told = Metrics::parse_from_bytes(&client.metrics(id).await?.value)?;
        assert_eq!(told.memory.usage.limit, LIMIT);
        assert_eq!(told.pids.current, 1);
        let pids: Vec<_> = client.pids(id).await?.into_iter().map(|(pid, _)| pid).collect();
        assert_eq!(pids, [pid.cast_unsigned()]);
        Ok(())
    })?;
    assert_eq!(cgroups::read(pid, Value::MemoryLimit)?, LIMIT);
    // One line without an end is more than there is room for.
    assert_eq!(container.exec(&["tail", "/dev/zero"])?.status, 137);
    container.remove()?;
    Ok(())
}

fn nothing_is_left_when_the_shim_is_killed(lane: &Lane, driven: &Driven) -> Result<()> {
    let container = driven.sleeper(lane, &[])?;
    container.exec_in_background(&["sleep", "2000"])?;
    let pid = container.pid()?;
    procs::signal(container.shim()?, Signal::SIGKILL)?;
    wait::until("the end of the container", SOON, || {
        ensure!(!procs::runs(pid), "{pid} runs");
        Ok(())
    })?;
    container.forget()?;
    // containerd may have the shim's `delete` at work yet.
    wait::until("the runtime's own memory", SOON, || {
        let state = fs::read_dir(driven.folder.join(&format!("state/{}", lane.mark())))?;
        let names = state.flatten().map(|entry| entry.file_name().display().to_string());
        let left: Vec<_> = names.filter(|name| name.starts_with(container.id())).collect();
        ensure!(left.is_empty(), "it knows of {left:?}");
        Ok(())
    })
}

fn what_the_runtime_says_is_told(lane: &Lane, driven: &Driven) -> Result<()> {
    let path = driven.path();
    let flags = ["--runtime-config-path", path.as_str()];
    let output = lane.run(&flags, &["/no/such/program"])?;
    assert_ne!(output.status, 0);
    assert!(output.stderr.contains("/no/such/program"), "{}", output.stderr);
    // The same container is made once more, so nothing was left of the first.
    driven.wrap("create", "echo odd > /dev/null; exit 9")?;
    let output = lane.run(&flags, &["true"])?;
    assert!(output.stderr.contains("wrapped: exit status 9"), "{}", output.stderr);
    driven.wrap("start", "exit 10")?;
    let output = lane.run(&flags, &["true"])?;
    assert!(output.stderr.contains("wrapped: exit status 10"), "{}", output.stderr);
    Ok(())
}

fn a_runtime_that_hangs_keeps_nobody_from_killing(lane: &Lane, driven: &Driven) -> Result<()> {
    let hanging = driven.folder.join("hanging");
    driven.wrap("pause", &format!("echo > {hanging}; exec sleep 1000"))?;
    let container = driven.sleeper(lane, &[])?;
    let ctr = lane.ctr();
    let pausing = ctr.start(&["task", "pause", container.id()])?;
    wait::until("the runtime's command", SOON, || Ok(fs::read(&hanging)?))?;
    container.kill("KILL")?;
    let output = pausing.finish(Duration::from_secs(30))?;
    assert!(output.stderr.contains("has ended"), "{}", output.stderr);
    assert_eq!(container.finish()?, 137);
    Ok(())
}

fn a_runtime_that_is_killed_leaves_nothing(lane: &Lane, driven: &Driven) -> Result<()> {
    let path = driven.path();
    let flags = ["--runtime-config-path", path.as_str()];
    // It dies as soon as there is something of the container, before it has said so.
    let found = format!("/sys/fs/cgroup/*/{}", lane.mark());
    let real = driven.folder.join("runtime");
    let script = format!(
        "{real} \"$@\" & n=0; until ls -d {found}/*; do n=$((n + 1)); [ $n -lt 5000 ] || break; \
         done > /dev/null 2>&1; kill -9 $!; kill -9 $$"
    );
    driven.wrap("create", &script)?;
    let output = lane.run(&flags, &["true"])?;
    assert_ne!(output.status, 0, "{}", output.stderr);
    Ok(())
}

fn a_binary_that_is_missing_is_named_with_its_option(lane: &Lane) -> Result<()> {
    lane.go_cannot("its options are of another kind")?;
    let folder = lane.folder()?;
    let path = folder.join("options.toml");
    for (binary, why) in [("/no/such/runc", "No such file"), ("no-such-runc", "PATH")] {
        fs::write(&path, format!("BinaryName = {binary:?}\n"))?;
        let output = lane.run(&["--runtime-config-path", &path], &["true"])?;
        assert_ne!(output.status, 0);
        let told = &output.stderr;
        for part in ["BinaryName", binary, why] {
            assert!(told.contains(part), "no {part} in {told}");
        }
    }
    Ok(())
}

fn options_come_in_runcs_own_message(lane: &Lane) -> Result<()> {
    let driven = Driven::new(lane, "runc")?;
    let mut options = shim_protos::runc::Options::new();
    options.binary_name = driven.folder.join("runtime");
    options.root = driven.folder.join("state");
    let value = options.write_to_bytes()?;
    let type_url = "containerd.runc.v1.Options".to_owned();
    let options = shim_protos::Any { type_url, value, ..Default::default() };
    let draft = lane.draft(&["sh", "-c", "exit 5"])?;
    lane.talk(async |client: Client| {
        let (name, init) = (draft.name.as_str(), Target::init(&draft.name));
        client.create_container(name, &draft.spec, Some(options)).await?;
        client.create(name, &[], &Streams::default()).await?;
        assert!(fs::exists(driven.folder.join(&format!("state/{}/{name}", lane.mark())))?);
        client.start(init).await?;
        assert_eq!(client.wait(init).await?, 5);
        client.delete(init).await?;
        client.delete_container(name).await
    })
}

/// A pod in gVisor: one container is the sandbox, the others are in its process.
struct GvisorPod<'a> {
    lane: &'a Lane,
    driven: Driven,
    sandbox: Container,
}

impl<'a> GvisorPod<'a> {
    fn new(lane: &'a Lane) -> Result<Self> {
        let driven = Driven::new(lane, "runsc")?;
        let name = lane.name();
        let path = driven.path();
        let (pod, kind) = (Self::annotation(&name), "io.kubernetes.cri.container-type=sandbox");
        let flags = ["--detach", "--null-io", "--runtime-config-path", path.as_str()];
        let flags = [flags.as_slice(), &["--annotation", &pod, "--annotation", kind]].concat();
        lane.ctr().ok(&lane.run_command(&flags, &name, &SLEEP))?;
        Ok(Self { lane, driven, sandbox: Container::new(&lane.ctr(), &name) })
    }

    fn annotation(name: &str) -> String {
        format!("io.kubernetes.cri.sandbox-id={name}")
    }

    /// The flags of a container in the pod.
    fn flags(&self) -> Vec<String> {
        let pod = Self::annotation(self.sandbox.id());
        let kind = "io.kubernetes.cri.container-type=container".to_owned();
        let path = self.driven.path();
        let annotated = ["--annotation".to_owned(), pod, "--annotation".to_owned(), kind];
        [["--runtime-config-path".to_owned(), path].as_slice(), &annotated].concat()
    }

    fn sleeper(&self) -> Result<Container> {
        let flags = self.flags();
        let flags: Vec<_> = flags.iter().map(String::as_str).chain(["--null-io"]).collect();
        self.lane.start(&flags, &SLEEP)
    }
}

fn a_pod_in_one_process_has_several_containers(lane: &Lane) -> Result<()> {
    let pod = GvisorPod::new(lane)?;
    let owned = pod.flags();
    let flags: Vec<_> = owned.iter().map(String::as_str).collect();
    assert_eq!(lane.output(&flags, &["echo", "hello"])?, "hello\n");
    for code in [0, 7, 255] {
        let output = lane.run(&flags, &["sh", "-c", &format!("exit {code}")])?;
        assert_eq!(output.status, code, "{}", output.stderr);
    }
    let missing = lane.run(&flags, &["/no/such/program"])?;
    assert!(missing.stderr.contains("/no/such/program"), "{}", missing.stderr);
    let container = pod.sleeper()?;
    assert_eq!(container.pid()?, pod.sandbox.pid()?);
    for code in [0, 4] {
        assert_eq!(container.exec(&["sh", "-c", &format!("exit {code}")])?.status, code);
    }
    lane.talk(async |client: Client| {
        let told = Metrics::parse_from_bytes(&client.metrics(container.id()).await?.value)?;
        assert_eq!(told.pids.current, 1);
        assert!(told.memory.usage.usage > 0);
        Ok(())
    })?;
    // What would stop the others, too, is not done.
    assert!(container.task(&["pause"]).is_err());
    assert_eq!(container.remove()?, 137);
    // The sandbox has not suffered.
    assert_eq!(pod.sandbox.exec(&["sh", "-c", "exit 3"])?.status, 3);
    assert_eq!(pod.sandbox.remove()?, 137);
    Ok(())
}

fn a_terminal_in_a_shared_process_works(lane: &Lane) -> Result<()> {
    let pod = GvisorPod::new(lane)?;
    let name = lane.name();
    let owned = pod.flags();
    let flags: Vec<_> = owned.iter().map(String::as_str).chain(["--rm", "--tty"]).collect();
    let args = lane.run_command(&flags, &name, &["sh"]);
    check_terminal(lane.ctr().start_on_terminal(&args, 24, 81)?)?;
    let container = pod.sleeper()?;
    check_terminal(container.start_exec_on_terminal(&["sh"], 24, 81)?)?;
    container.remove()?;
    pod.sandbox.remove()?;
    Ok(())
}

fn the_end_of_a_sandbox_is_that_of_all_in_it(lane: &Lane) -> Result<()> {
    let pod = GvisorPod::new(lane)?;
    let containers = [pod.sleeper()?, pod.sleeper()?];
    procs::signal(pod.sandbox.pid()?, Signal::SIGKILL)?;
    for container in containers {
        assert_eq!(container.finish()?, 137);
    }
    assert_eq!(pod.sandbox.finish()?, 137);
    Ok(())
}

fn nothing_of_a_shared_process_is_left_when_the_shim_is_killed(lane: &Lane) -> Result<()> {
    let pod = GvisorPod::new(lane)?;
    let container = pod.sleeper()?;
    let pid = pod.sandbox.pid()?;
    procs::signal(pod.sandbox.shim()?, Signal::SIGKILL)?;
    wait::until("the end of the sandbox", SOON, || {
        ensure!(!procs::runs(pid), "{pid} runs");
        Ok(())
    })?;
    container.forget()?;
    pod.sandbox.forget()
}
