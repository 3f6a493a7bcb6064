//! Containers that are saved, and go on from there.

use std::{
    env,
    fs::{self, File},
    io::{BufRead, BufReader},
    os::unix::{fs::symlink, net::UnixListener},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;

use crate::{
    terminal::receive,
    world::{Ended, PROGRAM, World, hook, is_root, script, until},
};

const COUNTER: &str = "trap 'exit 7' TERM; i=0; \
                       while :; do echo $i; i=$((i + 1)); sleep 0.02; done";

/// The CRIU that the tests under containerd have fetched, or the machine's.
fn criu() -> Option<PathBuf> {
    let target = Path::new(PROGRAM).ancestors().nth(2)?.join("engines");
    let engines = env::var_os("SHIM_ENGINES").map_or(target, PathBuf::from);
    let known = [engines.join("patched/criu"), PathBuf::from("/usr/sbin/criu")];
    let works = |path: &PathBuf| {
        let check = Command::new(path).arg("check").output();
        check.is_ok_and(|output| output.status.success())
    };
    let found = known.into_iter().find(works);
    if found.is_none() {
        println!("skipped: there is no criu that works on this kernel");
    }
    found
}

/// Whether there is all that it takes.
fn can_save() -> Option<Saver> {
    if !is_root() {
        return None;
    }
    Some(Saver(criu()?.display().to_string()))
}

/// The command line with a CRIU.
struct Saver(String);

impl Saver {
    fn args<'a>(&'a self, args: &[&'a str]) -> Vec<&'a str> {
        [&["--criu", self.0.as_str()], args].concat()
    }

    fn ok(&self, world: &World, args: &[&str]) -> String {
        world.ok(&self.args(args))
    }

    fn refused(&self, world: &World, args: &[&str]) -> String {
        world.refused(&self.args(args))
    }

    /// A verb that leaves a container, which writes to a file: by a pipe, for a file has to be of its
    /// old size when it is restored.
    fn leave(&self, world: &World, log: &str, args: &[&str]) {
        let mut file = File::create(world.path(log)).unwrap();
        let (mut output, written) = std::io::pipe().unwrap();
        let mut command = world.program();
        command.args(self.args(args)).stdout(written.try_clone().unwrap()).stderr(written);
        let status = command.status().unwrap();
        drop(command);
        // It ends with the container.
        let copies = std::thread::spawn(move || std::io::copy(&mut output, &mut file));
        if !status.success() {
            copies.join().unwrap().unwrap();
            panic!("{args:?}: {}", fs::read_to_string(world.path(log)).unwrap());
        }
    }
}

/// A tmpfs on the host, with a file in it.
struct Along(PathBuf);

impl Along {
    fn mount(at: PathBuf) -> Self {
        let none = None::<&str>;
        mount(Some("tmpfs"), &at, Some("tmpfs"), MsFlags::empty(), none).unwrap();
        fs::write(at.join("in"), "in\n").unwrap();
        Self(at)
    }
}

impl Drop for Along {
    fn drop(&mut self) {
        umount2(&self.0, MntFlags::MNT_DETACH).unwrap();
    }
}

/// The whole lines of a container's output.
fn lines(world: &World, log: &str) -> Vec<String> {
    let text = fs::read_to_string(world.path(log)).unwrap();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(str::to_owned).collect()
}

fn grown(world: &World, log: &str, count: usize) {
    let before = lines(world, log).len();
    until(|| lines(world, log).len() >= before + count);
}

/// Sees that one log goes on where another one ends.
fn goes_on(world: &World, before: &str, after: &str) {
    grown(world, after, 5);
    let number = |line: &String| line.parse::<u64>().unwrap();
    let (before, after) = (lines(world, before), lines(world, after));
    let all: Vec<u64> = before.iter().chain(&after).map(number).collect();
    assert!(all.iter().zip(0..).all(|(one, number)| *one == number), "{all:?}");
}

#[test]
fn one_goes_on_under_another_name_with_all_that_is_mounted() {
    let Some(saver) = can_save() else { return };
    let world = World::script(COUNTER).with(|spec| {
        let mounts = spec["mounts"].as_array_mut().unwrap();
        mounts.push(json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                            "options": ["ro", "nosuid", "noexec", "nodev"] }));
        mounts.push(json!({ "destination": "/link/data", "type": "bind", "source": "shared",
                            "options": ["rbind", "rw"] }));
        mounts.push(json!({ "destination": "/etc/one", "type": "bind", "source": "one",
                            "options": ["bind", "ro"] }));
    });
    fs::create_dir_all(world.path("shared/below")).unwrap();
    // What comes along with a mount of the host.
    let along = Along::mount(world.path("shared/below"));
    fs::write(world.path("one"), "one\n").unwrap();
    // The image leads elsewhere.
    symlink("/tmp", world.path("rootfs/link")).unwrap();
    saver.leave(&world, "first", &["run", "--detach", "c"]);
    grown(&world, "first", 5);
    saver.ok(&world, &["checkpoint", "--image-path", "image", "c"]);
    assert!(world.refused(&["state", "c"]).contains("does not exist"));
    fs::write(world.path("shared/new"), "new\n").unwrap();
    // Targets that are missing are made again.
    fs::remove_file(world.path("rootfs/etc/one")).unwrap();
    let restore = ["restore", "--detach", "--image-path", "image", "--pid-file", "pid", "d"];
    saver.leave(&world, "second", &restore);
    goes_on(&world, "first", "second");
    assert_eq!(fs::read_to_string(world.path("pid")).unwrap(), world.pid("d").to_string());
    let told = world.ok(&["exec", "d", "cat", "/tmp/data/new", "/etc/one", "/tmp/data/below/in"]);
    assert_eq!(told, "new\none\nin\n");
    assert!(world.ok(&["exec", "d", "ls", "/sys/fs/cgroup"]).contains("memory"));
    world.ok(&["kill", "d", "TERM"]);
    world.await_status("d", "stopped");
    world.ok(&["delete", "d"]);
    drop(along);
}

#[test]
fn who_restores_can_stay() {
    let Some(saver) = can_save() else { return };
    let world = World::script(COUNTER);
    saver.leave(&world, "first", &["run", "--detach", "c"]);
    grown(&world, "first", 5);
    saver.ok(&world, &["checkpoint", "c"]);
    // Where nothing is said the checkpoint is beside the bundle's files.
    assert!(world.path("checkpoint/inventory.img").exists());
    let args = saver.args(&["restore", "c"]);
    let mut verb = world.program().args(args).stdout(Stdio::piped()).spawn().unwrap();
    let mut told = BufReader::new(verb.stdout.take().unwrap()).lines();
    let first: usize = told.next().unwrap().unwrap().parse().unwrap();
    assert_eq!(first, lines(&world, "first").len());
    kill(Pid::from_raw(verb.id().cast_signed()), Signal::SIGTERM).unwrap();
    for line in told {
        line.unwrap();
    }
    assert_eq!(Ended::of(verb.wait_with_output().unwrap()).code, 7);
}

#[test]
fn a_terminal_is_sent_to_the_socket_again() {
    let Some(saver) = can_save() else { return };
    let world = World::script(COUNTER).with_terminal();
    let socket = world.path("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    let socket = socket.to_str().unwrap();
    let begin = |args: &[&str]| {
        let args = [args, &["--detach", "--console-socket", socket, "c"]].concat();
        world.leave(&saver.args(&args));
        let (text, master) = receive(&listener.accept().unwrap().0);
        assert_eq!(text, "/dev/ptmx");
        BufReader::new(master).lines().map(|line| line.unwrap().trim().parse::<u64>().unwrap())
    };
    let mut numbers = begin(&["run"]);
    assert!(numbers.by_ref().take(5).eq(0..5));
    saver.ok(&world, &["checkpoint", "c"]);
    let first = begin(&["restore"]).next().unwrap();
    assert!(first >= 5, "{first}");
    drop(numbers);
    world.ok(&["delete", "--force", "c"]);
}

#[test]
fn one_that_cannot_be_saved_runs_on() {
    let Some(saver) = can_save() else { return };
    let pipe = "tail -f /dev/null | nc -l -p 7 > /dev/null & sleep 0.2; (while :; do echo; sleep 1; \
                done | nc 127.0.0.1 7) &";
    let world = World::script(&format!("{pipe} {COUNTER}"));
    for applet in ["tail", "nc"] {
        symlink("busybox", world.path("rootfs/bin").join(applet)).unwrap();
    }
    saver.leave(&world, "first", &["run", "--detach", "c"]);
    grown(&world, "first", 5);
    let told = saver.refused(&world, &["checkpoint", "c"]);
    let log = told.rsplit_once("more is in ").unwrap().1.trim_end().trim_end_matches(')');
    assert!(told.contains("tcp") && Path::new(log).exists(), "{told}");
    grown(&world, "first", 5);
    for (flag, why) in [
        ("--lazy-pages", "not supported"),
        ("--page-server=127.0.0.1:1", "not supported"),
        ("--manage-cgroups-mode=hard", "\"hard\" is unknown"),
        ("--empty-ns=pid", "\"pid\""),
        ("--parent-path=/parent", "relative"),
    ] {
        let told = saver.refused(&world, &["checkpoint", flag, "c"]);
        assert!(told.contains(why), "{flag}: {told}");
    }
    let stays = ["checkpoint", "--tcp-established", "--leave-running", "--work-path", "work", "c"];
    saver.ok(&world, &stays);
    assert!(world.path("work/dump.log").exists());
    assert_eq!(world.status("c"), "running");
    world.ok(&["pause", "c"]);
    saver.ok(&world, &stays);
    assert_eq!(world.status("c"), "paused");
    world.ok(&["resume", "c"]);
    grown(&world, "first", 5);
    world.ok(&["delete", "--force", "c"]);
    // Without CRIU's help it is in its cgroup nevertheless.
    let mode = "--manage-cgroups-mode=ignore";
    saver.leave(&world, "second", &["restore", "--detach", "--tcp-established", mode, "c"]);
    grown(&world, "second", 5);
    let pids: Vec<i32> = serde_json::from_str(&world.ok(&["ps", "-f", "json", "c"])).unwrap();
    assert!(pids.contains(&world.pid("c")) && pids.len() > 3, "{pids:?}");
    world.ok(&["delete", "--force", "c"]);
}

#[test]
fn memory_is_saved_ahead_where_the_kernel_tells_what_changes() {
    let Some(saver) = can_save() else { return };
    let world = World::script(COUNTER);
    saver.leave(&world, "first", &["run", "--detach", "c"]);
    grown(&world, "first", 5);
    let before = ["checkpoint", "--pre-dump", "--image-path", "before", "c"];
    let ended = world.call(&saver.args(&before));
    if ended.code == 0 {
        grown(&world, "first", 5);
        let then = ["checkpoint", "--image-path", "then", "--parent-path", "../before", "c"];
        saver.ok(&world, &then);
        saver.leave(&world, "second", &["restore", "--detach", "--image-path", "then", "c"]);
        goes_on(&world, "first", "second");
    } else {
        assert!(ended.err.contains("CONFIG_MEM_SOFT_DIRTY"), "{ended:?}");
        println!("skipped: {}", ended.err.trim());
        grown(&world, "first", 5);
    }
    world.ok(&["delete", "--force", "c"]);
}

#[test]
fn a_failed_restore_leaves_nothing_and_hooks_can_fail_it() {
    let Some(saver) = can_save() else { return };
    let world = World::script(COUNTER);
    let told = saver.refused(&world, &["restore", "--detach", "--image-path", "none", "c"]);
    assert!(told.contains("none"), "{told}");
    saver.leave(&world, "first", &["run", "--detach", "c"]);
    grown(&world, "first", 5);
    saver.ok(&world, &["checkpoint", "c"]);
    let (path, log) = (world.path("hook"), world.path("log"));
    script(&path, &format!("echo \"$1\" >> {}; [ $1 != bad ] || exit 3", log.display()));
    let with = |world: World, word: &str| {
        world.with(|spec| {
            spec["hooks"]["createRuntime"] = hook(&path, &["hook", word]);
            spec["hooks"]["poststop"] = hook(&path, &["hook", "stopped"]);
        })
    };
    let world = with(world, "bad");
    let told = saver.refused(&world, &["restore", "--detach", "c"]);
    assert!(told.contains("exit status 3"), "{told}");
    assert!(world.refused(&["state", "c"]).contains("does not exist"));
    let world = with(world, "good");
    saver.leave(&world, "second", &["restore", "--detach", "c"]);
    goes_on(&world, "first", "second");
    world.ok(&["delete", "--force", "c"]);
    assert_eq!(fs::read_to_string(log).unwrap(), "bad\nstopped\ngood\nstopped\n");
}

#[test]
fn one_in_a_user_namespace_goes_on() {
    let Some(saver) = can_save() else { return };
    let world = World::script(COUNTER).with(|spec| {
        let ids = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
        spec["linux"]["uidMappings"] = ids.clone();
        spec["linux"]["gidMappings"] = ids;
        spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
    });
    fs::create_dir(world.path("rootfs/run")).unwrap();
    saver.leave(&world, "first", &["run", "--detach", "c"]);
    grown(&world, "first", 5);
    saver.ok(&world, &["checkpoint", "c"]);
    saver.leave(&world, "second", &["restore", "--detach", "c"]);
    goes_on(&world, "first", "second");
    assert_eq!(world.ok(&["exec", "c", "id", "-u"]), "0\n");
    world.ok(&["delete", "--force", "c"]);
}

#[test]
fn a_container_that_does_not_run_is_not_saved() {
    let Some(saver) = can_save() else { return };
    let world = World::sleeper();
    let told = saver.refused(&world, &["checkpoint", "c"]);
    assert!(told.contains("does not exist"), "{told}");
    world.create("c");
    let told = saver.refused(&world, &["checkpoint", "c"]);
    assert!(told.contains("in the created state"), "{told}");
    assert!(saver.refused(&world, &["restore", "--detach", "c"]).contains("exists already"));
    let missing = world.refused(&["--criu", "/no/criu", "checkpoint", "c"]);
    assert!(missing.contains("in the created state"), "{missing}");
    world.start("c");
    let missing = world.refused(&["--criu", "/no/criu", "checkpoint", "c"]);
    assert!(missing.contains("criu: /no/criu"), "{missing}");
    assert_eq!(world.status("c"), "running");
    world.ok(&["delete", "--force", "c"]);
}
