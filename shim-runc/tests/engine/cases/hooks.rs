//! Hooks of the spec.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use shim_core::Container;

use super::cases;
use crate::{Bench, bundle::Made};

/// A script on the host that writes down when it ran and what it was told.
fn script(directory: &Path, name: &str, body: &str) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, format!("#!/bin/busybox sh\n{body}\n")).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    path
}

cases! {
    async fn hooks_run_at_their_moments(bench: &Bench) {
        let outside = tempfile::tempdir().unwrap();
        let log = outside.path().join("log");
        let write = format!(
            "echo \"$1 $A $(readlink /proc/self/ns/uts) $(cat)\" >> {}", log.display());
        let path = script(outside.path(), "hook", &write);
        let made = Made::script("cat /proc/self/ns/none 2>/dev/null; cat /log; readlink /proc/self/ns/uts");
        fs::copy(&path, made.rootfs().join("bin/inside")).unwrap();
        fs::write(made.rootfs().join("bin/inside"),
            "#!/bin/sh\necho \"$1 $(cat | cut -d, -f3,4)\" > /log\n").unwrap();
        let made = made.with(|spec| {
            let hook = |moment: &str| json!([{ "path": path, "args": ["hook", moment],
                "env": ["A=b"], "timeout": 5 }]);
            spec["annotations"] = json!({ "a": "b" });
            // As most profiles do; the container's own hooks are filtered too.
            spec["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{ "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38 }] });
            spec["hooks"] = json!({
                "prestart": hook("prestart"), "createRuntime": hook("createRuntime"),
                "createContainer": hook("createContainer"), "poststart": hook("poststart"),
                "poststop": hook("poststop"),
                "startContainer": [{ "path": "/bin/inside", "args": ["x", "start"] }],
            });
        });
        let mut running = made.create(bench).await.unwrap();
        let pid = running.init.as_ref().unwrap().pid;
        let lines = |count: usize| -> Vec<(String, String, Value)> {
            let text = fs::read_to_string(&log).unwrap();
            let lines: Vec<_> = text.lines().map(|line| {
                let mut parts = line.splitn(4, ' ');
                let moment = parts.next().unwrap().to_owned();
                assert_eq!(parts.next(), Some("b"));
                let space = parts.next().unwrap().to_owned();
                (moment, space, serde_json::from_str(parts.next().unwrap()).unwrap())
            }).collect();
            assert_eq!(lines.len(), count, "{text}");
            lines
        };
        let host = fs::read_link("/proc/self/ns/uts").unwrap().display().to_string();
        let inside = fs::read_link(format!("/proc/{pid}/ns/uts")).unwrap().display().to_string();
        for ((moment, space, state), (expected, expected_space)) in lines(3).into_iter().zip([
            ("prestart", &host), ("createRuntime", &host), ("createContainer", &inside),
        ]) {
            assert_eq!((moment.as_str(), &space), (expected, expected_space));
            assert_eq!(state["status"], "creating");
            assert_eq!(state["pid"], pid.get());
            assert_eq!(state["id"], made.id.as_str());
            assert_eq!(state["annotations"]["a"], "b");
            assert_eq!(state["bundle"], made.dir.path().to_str().unwrap());
        }
        running.container.start().await.unwrap();
        let (moment, _, state) = lines(4).pop().unwrap();
        assert_eq!((moment.as_str(), &state["status"]), ("poststart", &json!("running")));
        running.wait().await;
        let printed = running.printed();
        assert!(printed.starts_with(&format!("start \"status\":\"created\",\"pid\":{pid}\n")), "{printed}");
        running.container.delete().await.unwrap();
        let (moment, _, state) = lines(5).pop().unwrap();
        assert_eq!((moment.as_str(), &state["status"]), ("poststop", &json!("stopped")));
    }

    async fn a_hook_that_says_no_ends_the_making(bench: &Bench) {
        let outside = tempfile::tempdir().unwrap();
        let no = script(outside.path(), "no", "echo it is closed >&2; exit 3");
        let slow = script(outside.path(), "slow", "exec sleep 100");
        for moment in ["prestart", "createRuntime", "createContainer"] {
            for (path, timeout, expected) in [
                (&no, 9, "exit status 3: it is closed"),
                (&slow, 1, "no end"),
                (&outside.path().join("none"), 9, if moment == "createContainer" { "exit status 126" }
                    else { "no such file or directory" }),
            ] {
                let made = Made::script("true").with(|spec| {
                    spec["hooks"][moment] = json!([{ "path": path, "timeout": timeout }]);
                });
                let why = made.refusal(bench).await;
                assert!(why.contains(expected) && why.contains("hook"), "{moment}: {why}");
            }
        }
        let made = Made::script("true").with(|spec| {
            spec["hooks"]["startContainer"] = json!([{ "path": "/bin/false" }]);
        });
        let mut running = made.create(bench).await.unwrap();
        let err = running.container.start().await.unwrap_err();
        assert_eq!(format!("{err:#}"), "startContainer hook /bin/false: exit status 1");
        running.wait().await;
        running.container.delete().await.unwrap();
    }
}
