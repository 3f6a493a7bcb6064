//! A user without the host's root, by itself and as the root of a user namespace.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use nix::unistd::{Gid, Uid, chown};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    common,
    world::{Ended, PROGRAM, is_root, until},
};

/// `nobody`, who owns nothing here.
const USER: u32 = 65534;

/// A user with a directory to write to. Dropped, it looks for containers that are left.
struct User {
    dir: TempDir,
    /// What comes before the program.
    before: &'static [&'static str],
}

impl User {
    fn new(before: &'static [&'static str]) -> Self {
        let dir = TempDir::new_in("/run").unwrap();
        fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        // The way to the one that was built may be closed to others.
        fs::copy(PROGRAM, dir.path().join("shim-runc")).unwrap();
        common::make_rootfs(&dir.path().join("rootfs"));
        fs::create_dir(dir.path().join("own")).unwrap();
        chown(dir.path(), Some(Uid::from_raw(USER)), Some(Gid::from_raw(USER))).unwrap();
        chown(&dir.path().join("own"), Some(Uid::from_raw(USER)), None).unwrap();
        Self { dir, before }
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("own/shim-runc")
    }

    fn program(&self, args: &[&str]) -> Command {
        let own = self.dir.path().join("shim-runc");
        let mut all = self.before.iter().map(Path::new).chain([own.as_path()]);
        let mut command = Command::new(all.next().unwrap());
        command.args(all.map(Path::as_os_str)).args(args).current_dir(self.dir.path());
        command.env("XDG_RUNTIME_DIR", self.dir.path().join("own")).stdin(Stdio::null());
        command.uid(USER).gid(USER);
        command
    }

    fn call(&self, args: &[&str]) -> Ended {
        Ended::of(self.program(args).output().unwrap())
    }

    fn ok(&self, args: &[&str]) -> String {
        let ended = self.call(args);
        assert_eq!(ended.code, 0, "{args:?}: {ended:?}");
        ended.out
    }

    /// Writes the spec of a user, with a program.
    fn spec(&self, change: impl FnOnce(&mut Value)) {
        let path = self.dir.path().join("config.json");
        let _ = fs::remove_file(&path);
        self.ok(&["spec", "--rootless"]);
        let mut spec: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        spec["process"]["terminal"] = false.into();
        change(&mut spec);
        fs::write(&path, spec.to_string()).unwrap();
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let left: Vec<_> = fs::read_dir(self.state()).into_iter().flatten().flatten().collect();
        for one in &left {
            self.call(&["delete", "--force", one.file_name().to_str().unwrap()]);
        }
        assert!(left.is_empty() || std::thread::panicking(), "left behind: {left:?}");
    }
}

#[test]
fn a_user_runs_a_container() {
    if !is_root() {
        return;
    }
    // By the same steps in a namespace that somebody else has made for the user.
    for before in [&[][..], &["unshare", "-r"], &["unshare", "-r", "-m"]] {
        let user = User::new(before);
        user.spec(|spec| {
            let script =
                "id -u; cat /proc/self/uid_map; echo x > /dev/null; ls -l /dev/null; exit 7";
            spec["process"]["args"] = json!(["/bin/sh", "-c", script]);
            if !before.is_empty() {
                spec["linux"]["namespaces"].as_array_mut().unwrap().pop();
                spec["linux"].as_object_mut().unwrap().remove("uidMappings");
                spec["linux"].as_object_mut().unwrap().remove("gidMappings");
            }
        });
        let ended = user.call(&["run", "c"]);
        assert_eq!(ended.code, 7, "{ended:?}");
        let map = format!("0 {USER} 1");
        let mapped = ended.out.lines().nth(1).unwrap().split_whitespace().collect::<Vec<_>>();
        assert!(ended.out.starts_with("0\n") && mapped.join(" ") == map, "{ended:?}");
        // The host's own device, as nobody may make one.
        assert!(ended.out.contains("crw-rw-rw-") && ended.out.contains("1,   3"), "{ended:?}");
    }
}

#[test]
fn a_user_goes_through_a_life() {
    if !is_root() {
        return;
    }
    let user = User::new(&[]);
    user.spec(|spec| spec["process"]["args"] = json!(["/bin/sleep", "1000"]));
    let mut create = user.program(&["create", "c"]);
    create.stdout(Stdio::null()).stderr(Stdio::null());
    assert!(create.status().unwrap().success());
    let state = || -> Value { serde_json::from_str(&user.ok(&["state", "c"])).unwrap() };
    assert_eq!(state()["status"], "created");
    user.ok(&["start", "c"]);
    for _ in 0..2 {
        assert_eq!(user.ok(&["exec", "c", "cat", "/proc/1/cmdline"]), "/bin/sleep\x001000\0");
    }
    assert_eq!(user.call(&["exec", "c", "sh", "-c", "exit 3"]).code, 3);
    let pids: Value = serde_json::from_str(&user.ok(&["ps", "-f", "json", "c"])).unwrap();
    assert_eq!(pids, json!([state()["pid"]]));
    user.ok(&["kill", "c", "KILL"]);
    until(|| state()["status"] == "stopped");
    user.ok(&["delete", "c"]);
}

#[test]
fn what_takes_more_than_a_user_has_is_refused() {
    if !is_root() {
        return;
    }
    let user = User::new(&[]);
    for (change, why) in [
        (
            (|spec| spec["linux"]["uidMappings"][0]["size"] = 2.into()) as fn(&mut Value),
            "a user can map nobody else",
        ),
        (
            |spec| spec["linux"]["namespaces"] = json!([{ "type": "mount" }]),
            "a user needs a user namespace",
        ),
        (|spec| spec["linux"]["resources"] = json!({ "pids": { "limit": 5 } }), "pids"),
        (|spec| spec["linux"]["cgroupsPath"] = "/somewhere/c".into(), "EACCES"),
    ] {
        user.spec(change);
        let ended = user.call(&["run", "c"]);
        assert_eq!(ended.code, 1, "{ended:?}");
        assert!(ended.err.contains(why), "{ended:?}");
    }
}
