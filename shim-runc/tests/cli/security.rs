//! Classes of holes that command lines of runtimes have had. A test's name begins with its class, as
//! in `docs/security.md`.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};

use crate::world::{Ended, PROGRAM, World, is_root};

fn running() -> World {
    let world = World::sleeper();
    world.create("c");
    world.start("c");
    world
}

/// The program's command in a shell that opens files for it first.
fn with_files(world: &World, files: &str, args: &[&str]) -> Ended {
    let line = format!(
        "exec {files}; exec {PROGRAM} --root {} {}",
        world.root().display(),
        args.join(" ")
    );
    let mut shell = Command::new("/bin/sh");
    world.program();
    Ended::of(shell.args(["-c", &line]).current_dir(world.dir.path()).output().unwrap())
}

#[test]
fn runtime_exe_is_not_written_when_the_runtime_has_ended() {
    if !is_root() {
        return;
    }
    let world = World::sleeper().with(|spec| {
        // All that could be in the way but the file itself.
        for set in ["bounding", "effective", "permitted"] {
            let set = spec["process"]["capabilities"][set].as_array_mut().unwrap();
            set.push("CAP_SYS_PTRACE".into());
        }
    });
    // A runtime of its own, which nobody else executes.
    let runtime = world.path("runtime");
    fs::copy(PROGRAM, &runtime).unwrap();
    let before = fs::read(&runtime).unwrap();
    let call = |args: &[&str]| {
        let mut program = Command::new(&runtime);
        program.current_dir(world.dir.path()).arg("--root").arg(world.root()).args(args);
        program.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        assert!(program.status().unwrap().success(), "{args:?}");
    };
    world.program();
    call(&["create", "c"]);
    // The container waits, and still is the runtime in its first process: that file is held.
    let script = "exec 3< /proc/1/exe && echo held; read go; \
        (echo overwritten >&3) 2>/dev/null; (echo overwritten >> /proc/self/fd/3) 2>/dev/null && echo written; echo end";
    let mut attacker = world.program();
    attacker.args(["exec", "c", "/bin/sh", "-c", script]);
    let mut attacker: Child =
        attacker.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(attacker.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().as_deref(), Some("held"));
    call(&["start", "c"]);
    attacker.stdin.take().unwrap().write_all(b"go\n").unwrap();
    let said: Vec<_> = lines.collect();
    attacker.wait().unwrap();
    world.ok(&["delete", "--force", "c"]);
    assert!(fs::read(&runtime).unwrap() == before, "the runtime was overwritten: {said:?}");
    assert_eq!(said, ["end"]);
}

#[test]
fn leaked_file_that_is_passed_on_is_no_working_directory() {
    if !is_root() {
        return;
    }
    // A directory of the host is the container's by choice; to stand in it from the start would
    // make all that is above it the container's, too.
    let world =
        World::script("ls ..").with(|spec| spec["process"]["cwd"] = "/proc/self/fd/3".into());
    let ended = with_files(&world, "3</run", &["run", "--preserve-fds", "1", "c"]);
    assert_eq!((ended.code, ended.out.as_str()), (1, ""), "{ended:?}");
    let world = running();
    let exec = ["exec", "--preserve-fds", "1", "--cwd", "/proc/self/fd/3", "c", "ls", ".."];
    let ended = with_files(&world, "3</run", &exec);
    assert_eq!((ended.code, ended.out.as_str()), (255, ""), "{ended:?}");
    assert!(ended.err.contains("the directory is outside of the container"), "{ended:?}");
    world.ok(&["delete", "-f", "c"]);
}

#[test]
fn leaked_file_of_the_caller_does_not_reach_a_program() {
    if !is_root() {
        return;
    }
    let world = World::script("ls /proc/self/fd | wc -l");
    let ended = with_files(&world, "3</run 7</etc/hostname", &["run", "c"]);
    // The three streams, and the directory that ls reads.
    assert_eq!(ended.out, "4\n", "{ended:?}");
    let world = running();
    let look = ["exec", "c", "ls", "/proc/self/fd"];
    assert_eq!(with_files(&world, "3</run 7</etc/hostname", &look).out, "0\n1\n2\n3\n");
    world.ok(&["delete", "-f", "c"]);
}

#[test]
fn user_number_is_made_of_digits_alone() {
    if !is_root() {
        return;
    }
    let world = running();
    let bad = [
        "+0",
        "+1000",
        "-1",
        " 0",
        "0 ",
        "\t7",
        "0x0",
        "1e3",
        "4294967295",
        "4294967296",
        "18446744073709551616",
        "0:",
        ":0",
        "0:+0",
        "0:-1",
        "0:0:0",
        "",
        "root",
        "0\n",
        "٣",
    ];
    for user in bad {
        let flag = format!("--user={user}");
        let ended = world.call(&["exec", &flag, "c", "id", "-u"]);
        assert_eq!((ended.code, ended.out.as_str()), (255, ""), "{user:?}: {ended:?}");
    }
    for group in ["+5", "-1", " 5", "4294967296", "wheel"] {
        let flag = format!("--additional-gids={group}");
        let ended = world.call(&["exec", &flag, "c", "id", "-G"]);
        assert!(ended.code != 0 && ended.out.is_empty(), "{group:?}: {ended:?}");
    }
    assert_eq!(world.ok(&["exec", "--user=007:4294967294", "c", "id", "-u"]), "7\n");
    world.ok(&["delete", "-f", "c"]);
}

#[test]
fn cgroup_path_of_an_added_process_can_not_climb() {
    if !is_root() {
        return;
    }
    let world = running();
    for path in [
        "..",
        "../..",
        "sub/../../..",
        "/../..",
        "./../x",
        "//..",
        "../c/../..",
        "pids:..",
        "pids,cpu:sub/../..",
    ] {
        let ended = world.call(&["exec", "--cgroup", path, "c", "true"]);
        assert!(ended.code == 255 && ended.err.contains("has a `..`"), "{path}: {ended:?}");
    }
    // From the container's cgroup on, however it is written.
    let ended = world.call(&["exec", "--cgroup", "/", "c", "cat", "/proc/self/cgroup"]);
    assert!(ended.out.lines().all(|line| line.ends_with(":/")), "{ended:?}");
    world.ok(&["delete", "-f", "c"]);
}

#[test]
fn id_path_is_refused_by_every_verb() {
    if !is_root() {
        return;
    }
    let world = World::sleeper();
    let aside = world.path("aside");
    fs::create_dir_all(&aside).unwrap();
    fs::create_dir_all(world.root()).unwrap();
    fs::write(aside.join("state.json"), "{}").unwrap();
    for id in ["../aside", "..", ".", ".hidden", "a/b", "/etc", "a\n", "a b", ""] {
        for verb in ["create", "run", "start", "state", "pause", "resume", "ps", "events"] {
            let ended = world.call(&[verb, "--", id]);
            assert!(
                ended.code != 0 && ended.err.contains("invalid container id"),
                "{verb} {id:?}: {ended:?}"
            );
        }
        for args in [
            &["kill", "--", id, "KILL"][..],
            &["delete", "--force", "--", id],
            &["exec", "--", id, "true"],
        ] {
            let ended = world.call(args);
            assert!(
                ended.code != 0 && ended.err.contains("invalid container id"),
                "{args:?}: {ended:?}"
            );
        }
    }
    assert!(aside.join("state.json").exists());
}

/// Writes another init process into a container's state, as an old one would stand there whose pid is
/// another's by now.
fn forge(folder: &Path, pid: u32) {
    let path = folder.join("state.json");
    let mut state: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    state["init"]["pid"] = json!(pid);
    fs::write(path, state.to_string()).unwrap();
    let path = folder.join("native.json");
    let lines = fs::read_to_string(&path).unwrap();
    let forged = lines.lines().map(|line| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        if line["init"].is_object() {
            line["init"]["pid"] = json!(pid);
        }
        format!("{line}\n")
    });
    fs::write(path, forged.collect::<String>()).unwrap();
}

#[test]
fn reused_pid_is_nobody_of_the_containers() {
    if !is_root() {
        return;
    }
    let world = running();
    // The container's own process ends first, as a pid has to be free to be another's.
    world.ok(&["kill", "c", "KILL"]);
    world.await_status("c", "stopped");
    let mut bystander = Command::new("/bin/sleep").arg("1000").spawn().unwrap();
    forge(&world.root().join("c"), bystander.id());
    assert_eq!(world.status("c"), "stopped");
    assert_eq!(world.pid("c"), 0);
    assert!(world.refused(&["kill", "c", "KILL"]).contains("not running"));
    assert_eq!(world.call(&["exec", "c", "true"]).code, 255);
    world.ok(&["delete", "--force", "c"]);
    assert!(bystander.try_wait().unwrap().is_none(), "somebody else was killed");
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}
