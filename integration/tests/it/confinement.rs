//! What a container may do: capabilities, privileges, system calls.

use anyhow::{Context, Result};
use integration::lane::Lane;
use integration::procs;
use integration::spec::CAPABILITIES;
use serde_json::{Value, json};

integration::tests![
    capabilities_are_those_of_the_spec,
    a_user_other_than_root_has_no_effective_capabilities,
    ambient_capabilities_reach_a_user_other_than_root,
    seccomp_filters_only_when_asked,
    privileges_can_be_gained_only_when_allowed,
    a_filter_of_ones_own_answers_with_its_error,
];

/// The set that containerd wrote into the container's spec, as the kernel's mask.
fn expected(spec: &Value, set: &str) -> u64 {
    let names = spec["process"]["capabilities"][set].as_array();
    let bits = names.into_iter().flatten().filter_map(Value::as_str).map(bit);
    bits.fold(0, |mask, bit| mask | 1 << bit)
}

/// The numbers of the capabilities that containerd gives by default (`linux/capability.h`).
fn bit(name: &str) -> u32 {
    let numbers = [0, 1, 4, 3, 27, 13, 6, 7, 31, 8, 10, 18, 5, 29];
    let known = CAPABILITIES.iter().zip(numbers).find(|(capability, _)| **capability == name);
    known.expect("a default capability").1
}

fn masks(pid: i32) -> Result<[u64; 5]> {
    let mask = |set| -> Result<u64> { Ok(u64::from_str_radix(&procs::status(pid, set)?, 16)?) };
    Ok([mask("CapBnd")?, mask("CapEff")?, mask("CapPrm")?, mask("CapInh")?, mask("CapAmb")?])
}

fn capabilities_are_those_of_the_spec(lane: &Lane) -> Result<()> {
    let container = lane.sleeper(&[])?;
    let info = lane.ctr().ok(&["container", "info", container.id()])?;
    let info: Value = serde_json::from_str(&info).context("read the container's record")?;
    let sets = ["bounding", "effective", "permitted", "inheritable", "ambient"];
    let expect = sets.map(|set| expected(&info["Spec"], set));
    assert_ne!(expect[0], 0, "{info}");
    assert_eq!(masks(container.pid()?)?, expect);
    container.remove()?;
    Ok(())
}

fn a_user_other_than_root_has_no_effective_capabilities(lane: &Lane) -> Result<()> {
    let user = json!({ "uid": 1000, "gid": 1000 });
    let (container, _folder) =
        lane.start_spec(&["sleep", "1000"], |spec| spec.set("/process/user", user))?;
    let [bounding, effective, permitted, ..] = masks(container.pid()?)?;
    assert_eq!((bounding, effective, permitted), (0xa804_25fb, 0, 0));
    container.remove()?;
    Ok(())
}

fn ambient_capabilities_reach_a_user_other_than_root(lane: &Lane) -> Result<()> {
    let set = json!(["CAP_NET_BIND_SERVICE"]);
    let user = json!({ "uid": 1000, "gid": 1000 });
    let (container, _folder) = lane.start_spec(&["sleep", "1000"], |mut spec| {
        for name in ["bounding", "effective", "permitted", "inheritable", "ambient"] {
            spec = spec.set(&format!("/process/capabilities/{name}"), set.clone());
        }
        spec.set("/process/user", user)
    })?;
    assert_eq!(masks(container.pid()?)?, [1 << 10; 5]);
    container.remove()?;
    Ok(())
}

fn seccomp_filters_only_when_asked(lane: &Lane) -> Result<()> {
    for (flags, mode, refused) in [(&[][..], "0", false), (&["--seccomp"], "2", true)] {
        let container = lane.sleeper(flags)?;
        assert_eq!(procs::status(container.pid()?, "Seccomp")?, mode);
        // A user namespace needs no capability, and the default profile refuses it; execs too.
        let exec = container.exec(&["unshare", "-U", "true"])?;
        assert_eq!(exec.status != 0, refused, "{}", exec.stderr);
        container.remove()?;
    }
    Ok(())
}

fn privileges_can_be_gained_only_when_allowed(lane: &Lane) -> Result<()> {
    for (flags, value) in [(&[][..], "1"), (&["--allow-new-privs"], "0")] {
        let container = lane.sleeper(flags)?;
        assert_eq!(procs::status(container.pid()?, "NoNewPrivs")?, value);
        container.remove()?;
    }
    Ok(())
}

fn a_filter_of_ones_own_answers_with_its_error(lane: &Lane) -> Result<()> {
    let seccomp = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            { "names": ["mkdir", "mkdirat", "unknown_call"],
              "action": "SCMP_ACT_ERRNO", "errnoRet": 28 },
            { "names": ["kill"], "action": "SCMP_ACT_ERRNO",
              "args": [{ "index": 1, "value": 34, "op": "SCMP_CMP_EQ" }] },
        ],
    });
    // 28 is ENOSPC; the second rule is only about signal 34.
    let script = "mkdir /tmp/x 2>&1; kill -34 $$ 2>&1; kill -0 $$ && echo fine";
    let output =
        lane.run_spec(&["sh", "-c", script], |spec| spec.set("/linux/seccomp", seccomp))?;
    let expect = ["No space left on device", "Operation not permitted", "fine"];
    assert_eq!(output.stdout.lines().count(), 3, "{} {}", output.stdout, output.stderr);
    for (line, end) in output.stdout.lines().zip(expect) {
        assert!(line.ends_with(end), "{line}");
    }
    Ok(())
}
