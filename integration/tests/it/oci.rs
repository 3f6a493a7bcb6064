//! What the OCI runtime spec can ask for and `ctr` cannot.

use std::fs;

use anyhow::{Context, Result, ensure};
use integration::lane::Lane;
use integration::wait::{self, SOON};
use integration::{cgroups, procs};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};

integration::tests![
    hooks_run_in_order_and_are_told_the_state,
    a_failing_hook_stops_the_container,
    kernel_parameters_are_set,
    the_score_of_the_out_of_memory_killer_is_set,
    the_umask_is_set,
    the_home_of_the_user_is_set,
    the_groups_file_has_no_say,
    a_device_of_the_spec_is_made_and_allowed,
    mount_options_are_applied,
    a_mount_made_outside_is_seen_through_a_slave,
    more_paths_are_masked_and_read_only,
    a_cgroup_namespace_hides_the_path,
    the_processes_of_the_host_can_be_seen,
    cpus_are_those_of_the_spec,
    a_root_marked_read_only_is,
    a_terminal_is_not_needed_for_a_console_size,
];

fn hook(name: &str, log: &str) -> Value {
    let script = format!("(echo {name}; cat; echo) >> {log}");
    json!({ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"] })
}

fn hooks_run_in_order_and_are_told_the_state(lane: &Lane) -> Result<()> {
    let folder = lane.folder()?;
    let log = folder.join("log");
    // The one that runs inside sees the folder by a mount, at the same path.
    let bind = json!({ "destination": folder.path(), "type": "bind", "source": folder.path(),
                       "options": ["rbind", "rw"] });
    let stages =
        ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
    let (container, _folder) = lane.start_spec(&["sleep", "1000"], |spec| {
        let hooks = spec.push("/mounts", bind).set("/hooks", json!({}));
        stages.iter().fold(hooks, |spec, stage| {
            spec.set(&format!("/hooks/{stage}"), json!([hook(stage, &log)]))
        })
    })?;
    let pid = container.pid()?;
    container.remove()?;
    let text = fs::read_to_string(&log)?;
    let lines: Vec<_> = text.lines().filter(|line| !line.is_empty()).collect();
    let mut names: Vec<_> = lines.iter().copied().step_by(2).collect();
    // The process of the one in the container may be slower than the start of the next.
    if names.get(3) == Some(&"poststart") {
        names.swap(3, 4);
    }
    assert_eq!(names, stages, "{text}");
    for (stage, state) in lines.iter().step_by(2).zip(lines.iter().skip(1).step_by(2)) {
        let state: Value = serde_json::from_str(state).context("read a state")?;
        assert_eq!(state["id"], container.id(), "{stage}");
        assert!(state["ociVersion"].is_string() && state["bundle"].is_string(), "{state}");
        let expect: &[&str] = match *stage {
            "prestart" | "createRuntime" | "createContainer" => &["creating"],
            "startContainer" => &["created"],
            // runc looks before the process has passed its last step.
            "poststart" => &["running", "created"],
            _ => &["stopped"],
        };
        assert!(expect.contains(&state["status"].as_str().unwrap_or_default()), "{stage}: {state}");
        if ["prestart", "createRuntime", "poststart"].contains(stage) {
            assert_eq!(state["pid"], pid, "{stage}");
        }
    }
    Ok(())
}

fn a_failing_hook_stops_the_container(lane: &Lane) -> Result<()> {
    for stage in ["prestart", "createRuntime", "createContainer", "startContainer"] {
        let hook = json!([{ "path": "/bin/sh", "args": ["sh", "-c", "exit 9"] }]);
        let output = lane.run_spec(&["echo", "started"], |spec| {
            spec.set("/hooks", json!({})).set(&format!("/hooks/{stage}"), hook)
        })?;
        assert_ne!(output.status, 0, "{stage}");
        assert_eq!(output.stdout, "", "{stage}");
    }
    Ok(())
}

fn kernel_parameters_are_set(lane: &Lane) -> Result<()> {
    let before = fs::read_to_string("/proc/sys/kernel/msgmax")?;
    let sysctl = json!({ "net.ipv4.ip_forward": "1", "kernel.msgmax": "12345" });
    let script = "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax";
    let output = lane.run_spec(&["sh", "-c", script], |spec| spec.set("/linux/sysctl", sysctl))?;
    assert_eq!(output.stdout, "1\n12345\n", "{}", output.stderr);
    assert_eq!(fs::read_to_string("/proc/sys/kernel/msgmax")?, before);
    Ok(())
}

fn the_score_of_the_out_of_memory_killer_is_set(lane: &Lane) -> Result<()> {
    let output = lane.run_spec(&["cat", "/proc/self/oom_score_adj"], |spec| {
        spec.set("/process/oomScoreAdj", json!(500))
    })?;
    assert_eq!(output.stdout, "500\n", "{}", output.stderr);
    Ok(())
}

fn the_umask_is_set(lane: &Lane) -> Result<()> {
    let output =
        lane.run_spec(&["sh", "-c", "umask"], |spec| spec.set("/process/user/umask", json!(0o27)))?;
    assert_eq!(output.stdout, "0027\n", "{}", output.stderr);
    Ok(())
}

fn the_home_of_the_user_is_set(lane: &Lane) -> Result<()> {
    for (uid, home) in [(0, "/root\n"), (1000, "/home\n"), (4321, "/\n")] {
        let user = json!({ "uid": uid, "gid": uid });
        let output =
            lane.run_spec(&["sh", "-c", "echo $HOME"], |spec| spec.set("/process/user", user))?;
        assert_eq!(output.stdout, home, "{}", output.stderr);
    }
    Ok(())
}

fn the_groups_file_has_no_say(lane: &Lane) -> Result<()> {
    // `worker` is in the group 2000 by the image; a runtime obeys numbers only.
    let user = json!({ "uid": 1000, "gid": 1000 });
    let output = lane.run_spec(&["id", "-G"], |spec| spec.set("/process/user", user))?;
    assert_eq!(output.stdout, "1000\n", "{}", output.stderr);
    Ok(())
}

fn a_device_of_the_spec_is_made_and_allowed(lane: &Lane) -> Result<()> {
    // The kernel's log: no default device, harmless to open, and open to this capability.
    let device = json!({ "path": "/dev/deep/log", "type": "c", "major": 1, "minor": 11,
                         "fileMode": 0o640, "uid": 7, "gid": 8 });
    let rule = json!({ "allow": true, "type": "c", "major": 1, "minor": 11, "access": "rw" });
    let script = "stat -c '%a %u:%g %t:%T' /dev/deep/log; exec 3< /dev/deep/log && echo opened";
    let output = lane.run_spec(&["sh", "-c", script], |spec| {
        let sets = ["bounding", "effective", "permitted"];
        let spec = sets.iter().fold(spec, |spec, set| {
            spec.push(&format!("/process/capabilities/{set}"), json!("CAP_SYSLOG"))
        });
        spec.set("/linux/devices", json!([device])).push("/linux/resources/devices", rule)
    })?;
    assert_eq!(output.stdout, "640 7:8 1:b\nopened\n", "{}", output.stderr);
    Ok(())
}

fn mount_options_are_applied(lane: &Lane) -> Result<()> {
    let mount = json!({
        "destination": "/mnt/deep", "type": "tmpfs", "source": "scratch",
        "options": ["nosuid", "nodev", "noexec", "ro", "size=64k", "mode=711"],
    });
    let output = lane.run_spec(&["grep", " /mnt/deep ", "/proc/self/mountinfo"], |spec| {
        spec.push("/mounts", mount)
    })?;
    for part in ["ro,nosuid,nodev,noexec", " - tmpfs scratch ", "size=64k", "mode=711"] {
        assert!(output.stdout.contains(part), "{part}: {} {}", output.stdout, output.stderr);
    }
    Ok(())
}

fn a_mount_made_outside_is_seen_through_a_slave(lane: &Lane) -> Result<()> {
    let folder = lane.folder()?;
    let (none, shared) = (None::<&str>, folder.path().join("shared"));
    fs::create_dir(&shared)?;
    mount(none, &shared, Some("tmpfs"), MsFlags::empty(), none)?;
    mount(none, &shared, none, MsFlags::MS_SHARED, none)?;
    fs::create_dir(shared.join("late"))?;
    let bind = json!({ "destination": "/mnt", "type": "bind", "source": shared,
                       "options": ["rbind", "rslave"] });
    // Only a root that receives propagation lets its mounts do so.
    let (container, _folder) = lane.start_spec(&["sleep", "1000"], |spec| {
        spec.push("/mounts", bind).set("/linux/rootfsPropagation", json!("rslave"))
    })?;
    mount(none, &shared.join("late"), Some("tmpfs"), MsFlags::empty(), none)?;
    fs::write(shared.join("late/file"), "")?;
    assert_eq!(container.output(&[], &["ls", "/mnt/late"])?, "file\n");
    umount2(&shared.join("late"), MntFlags::MNT_DETACH)?;
    container.remove()?;
    umount2(&shared, MntFlags::MNT_DETACH)?;
    Ok(())
}

fn more_paths_are_masked_and_read_only(lane: &Lane) -> Result<()> {
    let script = "cat /etc/passwd; ls /home /var; touch /tmp/x 2>&1; echo end";
    let draft = lane.draft(&["sh", "-c", script])?;
    fs::write(draft.rootfs() + "/home/file", "")?;
    let output = lane.run_draft(&draft, |spec| {
        spec.set("/linux/maskedPaths", json!(["/etc/passwd", "/home", "/no/such/path"]))
            .set("/linux/readonlyPaths", json!(["/tmp", "/no/such/path"]))
    })?;
    let lines: Vec<_> = output.stdout.lines().collect();
    let expect = ["/home:", "", "/var:", "touch: /tmp/x: Read-only file system", "end"];
    assert_eq!(lines, expect, "{}", output.stderr);
    Ok(())
}

fn a_cgroup_namespace_hides_the_path(lane: &Lane) -> Result<()> {
    let output = lane.run_spec(&["cat", "/proc/self/cgroup"], |spec| {
        spec.push("/linux/namespaces", json!({ "type": "cgroup" }))
    })?;
    let memory = output.stdout.lines().find(|line| line.contains(":memory:"));
    let line = memory.or_else(|| output.stdout.lines().find(|line| line.starts_with("0::")));
    assert!(line.is_some_and(|line| line.ends_with(":/")), "{} {}", output.stdout, output.stderr);
    Ok(())
}

fn the_processes_of_the_host_can_be_seen(lane: &Lane) -> Result<()> {
    let namespaces = ["ipc", "uts", "mount", "network"].map(|kind| json!({ "type": kind }));
    let script = "setsid sleep 2000 & sleep 1000";
    let (container, _folder) = lane.start_spec(&["sh", "-c", script], |spec| {
        spec.set("/linux/namespaces", json!(namespaces))
    })?;
    let pid = container.pid()?;
    let ps = container.output(&[], &["ps", "-o", "pid"])?;
    assert!(ps.lines().any(|line| line.trim() == pid.to_string()), "{ps}");
    wait::until("both processes", SOON, || {
        ensure!(cgroups::read(pid, cgroups::Value::Pids)? == 2);
        Ok(())
    })?;
    // Without a PID namespace nothing else ends the second one; the leak check looks for it.
    assert!(procs::runs(pid));
    assert_eq!(container.remove()?, 137);
    Ok(())
}

fn cpus_are_those_of_the_spec(lane: &Lane) -> Result<()> {
    let output = lane.run_spec(&["grep", "Cpus_allowed_list", "/proc/self/status"], |spec| {
        spec.set("/linux/resources/cpu", json!({ "cpus": "0", "mems": "0", "shares": 512 }))
    })?;
    assert_eq!(output.stdout, "Cpus_allowed_list:\t0\n", "{}", output.stderr);
    Ok(())
}

fn a_root_marked_read_only_is(lane: &Lane) -> Result<()> {
    let output =
        lane.run_spec(&["touch", "/tmp/x"], |spec| spec.set("/root/readonly", json!(true)))?;
    assert!(output.stderr.contains("Read-only file system"), "{}", output.stderr);
    Ok(())
}

fn a_terminal_is_not_needed_for_a_console_size(lane: &Lane) -> Result<()> {
    let output = lane.run_spec(&["echo", "fine"], |spec| {
        spec.set("/process/consoleSize", json!({ "height": 10, "width": 20 }))
    })?;
    assert_eq!(output.stdout, "fine\n", "{}", output.stderr);
    Ok(())
}
