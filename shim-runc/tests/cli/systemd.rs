//! Cgroups that systemd makes: on hosts that run it, with cgroup v2 alone.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::world::{Ended, PROGRAM, World, is_root, until};

/// A world whose container is a unit. Dropped, it looks whether that is gone.
struct Unit {
    world: World,
    name: String,
}

/// Whether this host can do it.
pub(crate) fn is_systemds() -> bool {
    if !is_root() {
        return false;
    }
    if !Path::new("/run/systemd/system").exists() {
        println!("skipped: systemd does not run here");
        return false;
    }
    let is_v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    if !is_v2 {
        println!("skipped: this host's controllers are on cgroup v1");
    }
    is_v2
}

fn systemctl(args: &[&str]) -> String {
    let ended = Ended::of(Command::new("systemctl").args(args).output().unwrap());
    ended.out.trim().to_owned()
}

/// A property of a unit, as systemd tells it.
pub(crate) fn property(unit: &str, name: &str) -> String {
    systemctl(&["show", "--value", "--property", name, unit])
}

/// Checks several at once: each question is a process.
pub(crate) fn check_properties(unit: &str, expected: &[(&str, &str)]) {
    let told = systemctl(&["show", unit]);
    for (name, expected) in expected {
        let line = told.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        assert_eq!(line, Some(*expected), "{name}");
    }
}

impl Unit {
    /// A scope in a slice of its own, with these resources.
    fn scope(world: World, resources: Value) -> Self {
        let slice = world.cgroup.replace('-', "_");
        let name = format!("p-{}.scope", world.cgroup);
        let path = format!("{slice}.slice:p:{}", world.cgroup);
        let world = world.with(|spec| {
            spec["linux"]["cgroupsPath"] = path.into();
            for (name, value) in resources.as_object().unwrap() {
                spec["linux"]["resources"][name] = value.clone();
            }
        });
        Self { world, name }
    }

    fn slice(&self) -> String {
        let path = self.world.spec["linux"]["cgroupsPath"].as_str().unwrap();
        path.split(':').next().unwrap().to_owned()
    }

    fn directory(&self) -> PathBuf {
        Path::new("/sys/fs/cgroup").join(self.slice()).join(&self.name)
    }

    fn file(&self, name: &str) -> String {
        let path = self.directory().join(name);
        fs::read_to_string(&path)
            .unwrap_or_else(|err| panic!("{}: {err}", path.display()))
            .trim()
            .to_owned()
    }

    fn property(&self, name: &str) -> String {
        property(&self.name, name)
    }

    fn is_there(&self) -> bool {
        self.property("LoadState") != "not-found"
    }

    fn create(&self) {
        self.world.leave(&["--systemd-cgroup", "create", "c"]);
    }

    fn begin(&self) {
        self.create();
        self.world.start("c");
    }

    fn end(&self) {
        self.world.ok(&["--systemd-cgroup", "delete", "--force", "c"]);
        assert!(!self.is_there(), "{}", systemctl(&["status", &self.name]));
        assert!(!self.directory().exists());
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        let is_left = self.is_there();
        systemctl(&["stop", &self.name]);
        systemctl(&["stop", &self.slice()]);
        assert!(!is_left || std::thread::panicking(), "{} is left behind", self.name);
    }
}

#[test]
fn a_container_is_a_scope_with_its_limits_as_properties() {
    if !is_systemds() {
        return;
    }
    let unit = Unit::scope(
        World::sleeper(),
        json!({
            "memory": { "limit": 64 << 20, "reservation": 32 << 20 },
            "cpu": { "shares": 512, "quota": 50000, "period": 100_000, "cpus": "0" },
            "pids": { "limit": 5 },
            // The latter is a property only of newer versions, and a file in any case.
            "unified": { "memory.high": "50331648", "memory.oom.group": "1" },
        }),
    );
    unit.create();
    // Nobody is in it but the container's own process, which was born there.
    let pid = unit.world.pid("c");
    assert_eq!(unit.file("cgroup.procs"), pid.to_string());
    unit.world.start("c");
    let place = format!("/{}/{}", unit.slice(), unit.name);
    check_properties(
        &unit.name,
        &[
            ("ControlGroup", place.as_str()),
            ("Slice", &unit.slice()),
            ("ActiveState", "active"),
            ("Delegate", "yes"),
            ("DefaultDependencies", "no"),
            ("Transient", "yes"),
            ("MemoryAccounting", "yes"),
            ("MemoryMax", "67108864"),
            ("MemoryLow", "33554432"),
            ("MemoryHigh", "50331648"),
            ("TasksMax", "5"),
            ("CPUWeight", "59"),
            ("CPUQuotaPerSecUSec", "500ms"),
            ("CPUQuotaPeriodUSec", "100ms"),
            ("AllowedCPUs", "0"),
            ("DevicePolicy", "strict"),
        ],
    );
    for (name, expected) in [
        ("memory.max", "67108864"),
        ("memory.low", "33554432"),
        ("memory.high", "50331648"),
        ("memory.oom.group", "1"),
        // Without the room for whoever kept the scope.
        ("pids.max", "5"),
        ("cpu.weight", "59"),
        ("cpu.max", "50000 100000"),
        ("cpuset.cpus", "0"),
    ] {
        assert_eq!(unit.file(name), expected, "{name}");
    }
    // Its cgroup is the root of its namespace, and an added process is in it, too.
    assert_eq!(unit.world.ok(&["exec", "c", "cat", "/proc/self/cgroup"]), "0::/\n");
    let mut held =
        unit.world.program().args(["exec", "c", "cat"]).stdin(Stdio::piped()).spawn().unwrap();
    until(|| unit.file("cgroup.procs").lines().count() == 2);
    drop(held.stdin.take());
    assert!(held.wait().unwrap().success());
    unit.end();
}

#[test]
fn what_systemd_reloads_keeps_its_limits_and_devices() {
    if !is_systemds() {
        return;
    }
    let world = World::sleeper();
    let unit =
        Unit::scope(world, json!({ "memory": { "limit": 64 << 20 }, "pids": { "limit": 20 } }));
    unit.begin();
    let update = json!({
        "memory": { "limit": 128 << 20 }, "pids": { "limit": 30 }, "cpu": { "shares": 2048 },
    });
    fs::write(unit.world.path("update.json"), update.to_string()).unwrap();
    unit.world.ok(&["--systemd-cgroup", "update", "-r", "update.json", "c"]);
    let check = || {
        let limits = [("MemoryMax", "134217728"), ("TasksMax", "30"), ("CPUWeight", "174")];
        check_properties(&unit.name, &limits);
        for (file, (_, expected)) in ["memory.max", "pids.max", "cpu.weight"].iter().zip(limits) {
            assert_eq!(unit.file(file), expected, "{file}");
        }
        // A terminal that is not there is still one that may be opened.
        let script = "echo x >/dev/null && mknod /dev/b$$ b 7 0 && mknod /dev/c$$ c 136 99 && \
            cat /dev/b$$ 2>&1 | grep -q permitted && ! cat /dev/c$$ 2>&1 | grep permitted";
        unit.world.ok(&["exec", "c", "sh", "-c", script]);
    };
    check();
    systemctl(&["daemon-reload"]);
    check();
    unit.end();
}

#[test]
fn a_limit_of_one_process_leaves_room_for_the_program() {
    if !is_systemds() {
        return;
    }
    for limit in [json!({ "pids": { "limit": 1 } }), json!({ "unified": { "pids.max": "1" } })] {
        let unit = Unit::scope(World::sleeper(), limit);
        unit.begin();
        assert_eq!((unit.file("pids.max"), unit.file("pids.current")), ("1".into(), "1".into()));
        unit.end();
    }
}

#[test]
fn a_container_that_has_ended_takes_its_scope_with_it() {
    if !is_systemds() {
        return;
    }
    let unit = Unit::scope(World::script("exit 7"), json!({}));
    assert_eq!(unit.world.call(&["--systemd-cgroup", "run", "c"]).code, 7);
    assert!(!unit.is_there());
    unit.begin();
    unit.world.await_status("c", "stopped");
    until(|| !unit.is_there());
    unit.world.ok(&["--systemd-cgroup", "delete", "c"]);
    // At once again, by the same name.
    assert_eq!(unit.world.call(&["--systemd-cgroup", "run", "c"]).code, 7);
}

#[test]
fn a_container_can_be_paused_and_killed_there() {
    if !is_systemds() {
        return;
    }
    let unit = Unit::scope(World::sleeper(), json!({}));
    unit.begin();
    unit.world.ok(&["pause", "c"]);
    assert_eq!(unit.world.status("c"), "paused");
    unit.world.ok(&["resume", "c"]);
    let pids = unit.world.ok(&["ps", "-f", "json", "c"]);
    assert_eq!(pids.trim(), format!("[{}]", unit.world.pid("c")));
    unit.world.ok(&["pause", "c"]);
    unit.end();
}

#[test]
fn a_unit_that_is_there_is_left_alone() {
    if !is_systemds() {
        return;
    }
    let unit = Unit::scope(World::sleeper(), json!({}));
    let mut other = Command::new("systemd-run");
    let slice = format!("--slice={}", unit.slice());
    let name = format!("--unit={}", unit.name);
    other.args(["--quiet", "--scope", &slice, &name, "sleep", "1000"]);
    let mut other = other.spawn().unwrap();
    until(|| unit.property("ActiveState") == "active");
    let why = unit.world.refused(&["--systemd-cgroup", "create", "c"]);
    assert!(why.contains(&format!("start unit {}: ", unit.name)), "{why}");
    assert!(why.contains("UnitExists"), "{why}");
    assert_eq!(unit.file("cgroup.procs").lines().count(), 1);
    systemctl(&["stop", &unit.name]);
    other.wait().unwrap();
}

#[test]
fn what_is_no_unit_is_refused_and_leaves_nothing() {
    if !is_systemds() {
        return;
    }
    let unit = Unit::scope(World::sleeper(), json!({}));
    for bad in ["/a/b", "a:b", "x:p:c", "a--b.slice:p:c"] {
        let mut world = World::sleeper();
        world.spec["linux"]["cgroupsPath"] = bad.into();
        let why = world.refused(&["--systemd-cgroup", "create", "c"]);
        assert!(why.contains("linux.cgroupsPath"), "{why}");
    }
    let annotated = |name: &str, value: &str| {
        let mut unit = Unit::scope(World::sleeper(), json!({}));
        unit.world.spec["annotations"] = json!({ format!("org.systemd.property.{name}"): value });
        unit
    };
    for (name, value, told) in [
        ("TimeoutStopUSec", "soon", "annotation org.systemd.property.TimeoutStopUSec"),
        ("NoSuchProperty", "true", "NoSuchProperty"),
        ("TimeoutStopUSec", "'text'", "start unit"),
    ] {
        let unit = annotated(name, value);
        let why = unit.world.refused(&["--systemd-cgroup", "create", "c"]);
        assert!(why.contains(told), "{why}");
    }
    let good = annotated("TimeoutStopSec", "123");
    good.begin();
    assert_eq!(good.property("TimeoutStopUSec"), "2min 3s");
    good.end();
    // A limit that the kernel refuses, when the scope stands already.
    let world = World::sleeper();
    let late = Unit::scope(world, json!({ "unified": { "memory.nonsense": "1" } }));
    let why = late.world.refused(&["--systemd-cgroup", "create", "c"]);
    assert!(why.contains("memory.nonsense"), "{why}");
    drop(unit);
}

#[test]
fn a_container_may_be_in_a_slice() {
    if !is_systemds() {
        return;
    }
    let mut world = World::sleeper();
    let slice = format!("{}.slice", world.cgroup.replace('-', "_"));
    world.spec["linux"]["cgroupsPath"] = format!("::{slice}").into();
    world.leave(&["--systemd-cgroup", "create", "c"]);
    let directory = Path::new("/sys/fs/cgroup").join(&slice);
    let procs = fs::read_to_string(directory.join("cgroup.procs")).unwrap();
    assert_eq!(procs.trim(), world.pid("c").to_string());
    world.ok(&["delete", "--force", "c"]);
    assert_eq!(property(&slice, "ActiveState"), "inactive");
    assert!(!directory.exists());
}

#[test]
fn without_its_own_socket_systemd_is_found_on_the_bus() {
    if !is_systemds() {
        return;
    }
    // What is no socket refuses a connection; only in a mount namespace of the test's own.
    let hidden = |unit: &Unit, sockets: &str, verb: &str| {
        let script = format!(
            "for one in {sockets}; do mount --bind /dev/null $one || exit 9; done; exec \"$@\""
        );
        let program = unit.world.program();
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script, "sh", PROGRAM]);
        command.args(program.get_args()).current_dir(unit.world.dir.path());
        command.args(["--systemd-cgroup", verb, "c"]).stdin(Stdio::null());
        Ended::of(command.output().unwrap())
    };
    let own = "/run/systemd/private";
    let unit = Unit::scope(World::script("exit 6"), json!({}));
    let ended = hidden(&unit, own, "run");
    assert_eq!((ended.code, ended.err.as_str()), (6, ""), "{ended:?}");
    // Processes have other numbers for a systemd that is not in their pid namespace.
    let mut apart = Command::new("unshare");
    apart.args(["--pid", "--fork", "--mount-proc", "--kill-child", PROGRAM]);
    apart.args(unit.world.program().get_args()).current_dir(unit.world.dir.path());
    apart.args(["--systemd-cgroup", "run", "c"]).stdin(Stdio::null());
    let ended = Ended::of(apart.output().unwrap());
    assert!(ended.err.contains("it is in another pid namespace"), "{ended:?}");
    let ended = hidden(&unit, &format!("{own} /run/dbus/system_bus_socket"), "create");
    assert_eq!(ended.code, 1);
    let told = format!("start unit {}: connect to systemd: {own}: ", unit.name);
    assert!(ended.err.contains(&told), "{}", ended.err);
    assert!(ended.err.contains("; /run/dbus/system_bus_socket: "), "{}", ended.err);
}

#[test]
fn a_container_without_a_path_is_in_the_systems_slice() {
    if !is_systemds() {
        return;
    }
    let mut world = World::sleeper();
    world.spec["linux"].as_object_mut().unwrap().remove("cgroupsPath");
    let id = world.cgroup.clone();
    world.leave(&["--systemd-cgroup", "create", &id]);
    let at = fs::read_to_string(format!("/proc/{}/cgroup", world.pid(&id))).unwrap();
    assert_eq!(at.trim(), format!("0::/system.slice/runc-{id}.scope"));
    world.ok(&["delete", "--force", &id]);
}

#[test]
fn where_systemd_does_not_run_it_is_missed_by_name() {
    if !is_root() || Path::new("/run/systemd/private").exists() {
        println!("skipped: systemd runs here");
        return;
    }
    let world = World::sleeper().with(|spec| spec["linux"]["cgroupsPath"] = "a.slice:p:x".into());
    let why = world.refused(&["--systemd-cgroup", "create", "c"]);
    assert!(
        why.contains("start unit p-x.scope: connect to systemd: /run/systemd/private: "),
        "{why}"
    );
}
