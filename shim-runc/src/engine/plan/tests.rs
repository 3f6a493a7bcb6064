//! Whole plans, without a kernel.

use oci_spec::runtime::Spec;
use serde_json::{Value, json};
use shim_core::{Kind, model::Bundle};

use super::*;

pub(super) fn spec() -> Value {
    json!({
        "ociVersion": "1.1.0",
        "root": { "path": "rootfs", "readonly": true },
        "hostname": "web-1",
        "process": {
            "user": { "uid": 1000, "gid": 1001 },
            "args": ["sh", "-c", "true"],
            "env": ["PATH=/bin:/usr/bin"],
            "cwd": "/work",
            "noNewPrivileges": true,
            "oomScoreAdj": 100,
            "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": 10, "hard": 20 }],
        },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["ro"] },
            { "destination": "/data", "type": "bind", "source": "data", "options": ["rbind"] },
        ],
        "linux": {
            "namespaces": [
                { "type": "pid" }, { "type": "mount" }, { "type": "uts" }, { "type": "cgroup" },
                { "type": "network", "path": "/run/netns/a" },
            ],
            "maskedPaths": ["/proc/kcore"],
            "readonlyPaths": ["/proc/sys"],
        },
    })
}

fn plan_with(spec: &Value, choices: Choices, facts: &Facts) -> Result<Plan> {
    plan_on(spec, choices, facts, Modules::default())
}

fn plan_on(spec: &Value, choices: Choices, facts: &Facts, modules: Modules) -> Result<Plan> {
    let spec: Spec = serde_json::from_value(spec.clone()).expect("a spec");
    check(&spec)?;
    let namespaces = Namespaces::of(&spec)?;
    let keyring = Some("_ses.c1".to_owned());
    Plan::container(&Asked {
        spec: &spec,
        bundle: &Bundle::new("/bundle").unwrap(),
        namespaces: &namespaces,
        inherited: &Inherited::of(&spec, None, None, None, modules, keyring)?,
        hooks: &Hooks::of(&spec)?,
        choices,
        facts,
    })
}

fn plan(spec: &Value) -> Result<Plan> {
    plan_with(spec, Choices::default(), &Facts::default())
}

fn lines(plan: &Plan) -> Vec<String> {
    plan.steps.iter().map(Step::to_string).collect()
}

fn refused(change: impl FnOnce(&mut Value)) -> Error {
    let mut spec = spec();
    change(&mut spec);
    plan(&spec).map(|plan| lines(&plan)).unwrap_err()
}

#[test]
fn a_plan_reads_like_a_recipe() {
    let mut plan = plan(&spec()).unwrap();
    plan.enter_cgroup(["memory", "name=systemd"].into_iter(), true).unwrap();
    let expected = "wait for the cgroup
join cgroup hierarchy memory
join cgroup hierarchy name=systemd
start a session
wait for the shim's settings
join namespace /run/netns/a
make a cgroup namespace
join session keyring _ses.c1
set hostname web-1
part the mounts from the host's
mount root filesystem /bundle/rootfs
mount proc on /proc
mount tmpfs on /dev
bind /bundle/data on /data
device /dev/null
device /dev/zero
device /dev/full
device /dev/random
device /dev/urandom
device /dev/tty
symlink /dev/fd
symlink /dev/stdin
symlink /dev/stdout
symlink /dev/stderr
symlink /dev/ptmx
make /proc/sys read-only
mask /proc/kcore
pivot root
make directory /work
set up the standard streams
make /dev read-only
make the root filesystem read-only
set RLIMIT_NOFILE to 10:20
set the umask
set no_new_privs
drop capabilities from the bounding set
look up the home directory of user 1000
change to directory /work
set uid 1000 and gid 1001
change to directory /work
set capabilities
mark files close-on-exec
exec: sh
wait for start
exec";
    assert_eq!(lines(&plan).join("\n"), expected);
    assert_eq!(plan.program(), "sh");
    // The network namespace is joined; the cgroup namespace is made by the child itself.
    let cloned = libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWUTS;
    assert_eq!(plan.request.namespaces, u64::from(cloned.cast_unsigned()));
    assert!(plan.request.cgroup.is_some() && plan.request.joins.is_empty());
}

#[test]
fn the_executor_reads_what_was_planned() {
    let plan = plan(&spec()).unwrap();
    let bytes = plan.bytes();
    let mut reader = crate::engine::wire::Reader::new(&bytes);
    for step in &plan.steps {
        let order = crate::engine::step::Order::read(&mut reader).expect("a step");
        let (order, step) = (format!("{order:?}"), format!("{step:?}"));
        let name = |text: &str| text.split([' ', '{']).next().map(str::to_owned);
        assert_eq!(name(&order), name(&step));
    }
    assert!(crate::engine::step::Order::read(&mut reader).is_err());
}

#[test]
fn a_user_namespace_binds_its_devices_and_joins_in_between() {
    let mut spec = spec();
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
    spec["linux"]["uidMappings"] = map.clone();
    spec["linux"]["gidMappings"] = map;
    spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
    let plan = plan(&spec).unwrap();
    assert_eq!(plan.mappings.as_ref().unwrap().users, "0 100000 65536\n");
    assert!(plan.steps.iter().any(|step| matches!(step, Step::BindDevice { .. })));
    assert!(!plan.steps.iter().any(|step| matches!(step, Step::MakeDevice { .. })));
    // Nothing of the host's can be joined from inside.
    assert!(!plan.steps.iter().any(|step| matches!(step, Step::JoinNamespace { .. })));
    assert_eq!(plan.request.joins.len(), 1);
    assert!(plan.raises_limits);
}

#[test]
fn an_ipc_namespace_is_made_by_the_root_of_the_user_namespace() {
    let mut spec = spec();
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
    spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "ipc" }));
    let ipc = u64::from(libc::CLONE_NEWIPC.cast_unsigned());
    let plain = plan(&spec).unwrap();
    assert_eq!(plain.request.namespaces & ipc, ipc);
    assert!(!lines(&plain).contains(&"make an ipc namespace".to_owned()));
    spec["linux"]["uidMappings"] = map.clone();
    spec["linux"]["gidMappings"] = map;
    spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
    let mapped = plan(&spec).unwrap();
    assert_eq!(mapped.request.namespaces & ipc, 0);
    let lines = lines(&mapped);
    let root = lines.iter().position(|line| line == "become root of the user namespace").unwrap();
    assert_eq!(lines[root + 1], "make an ipc namespace");
}

#[test]
fn an_added_process_without_capabilities_has_the_containers() {
    let mut spec = spec();
    spec["process"]["capabilities"] =
        json!({ "bounding": ["CAP_KILL"], "permitted": ["CAP_KILL"] });
    let full: Spec = serde_json::from_value(spec).unwrap();
    let namespaces = Namespaces::of(&full).unwrap();
    let inherited = Inherited::of(&full, None, None, None, Modules::default(), None).unwrap();
    let permitted = |process: &Process| {
        let plan = Plan::process(process, &namespaces, &inherited, Choices::default()).unwrap();
        plan.steps.iter().find_map(|step| match step {
            Step::SetCapabilities { permitted, .. } => Some(*permitted),
            _ => None,
        })
    };
    let mut process = full.process().clone().unwrap();
    process.set_capabilities(None);
    assert_eq!(permitted(&process), Some(1 << 5));
    process.set_capabilities(Some(oci_spec::runtime::LinuxCapabilities::default()));
    assert_ne!(permitted(&process), Some(1 << 5));
}

#[test]
fn an_added_process_follows_into_all_namespaces() {
    let full: Spec = serde_json::from_value(spec()).unwrap();
    let namespaces = Namespaces::of(&full).unwrap();
    let inherited = Inherited::of(&full, None, None, None, Modules::default(), None).unwrap();
    let process = full.process().as_ref().unwrap();
    let plan = Plan::process(process, &namespaces, &inherited, Choices::default()).unwrap();
    let lines = lines(&plan);
    let first =
        ["start a session", "wait for the shim's settings", "join the container's namespaces"];
    assert_eq!(lines[..3], first);
    assert_eq!(lines.last().unwrap(), "exec");
    assert!(!lines.contains(&"wait for start".to_owned()));
    let joined = plan.steps.iter().find_map(|step| match step {
        Step::JoinContainer { kinds, .. } => Some(*kinds),
        _ => None,
    });
    let all = libc::CLONE_NEWNS | libc::CLONE_NEWUTS | libc::CLONE_NEWCGROUP | libc::CLONE_NEWNET;
    let kinds = u64::from(all.cast_unsigned());
    assert_eq!(joined, Some(kinds));
    assert!(plan.request.pids.is_some() && plan.request.joins.is_empty());
    // Where others could look into it, the process that clones it joins, all but the pid namespace.
    let inherited = Inherited { may_trace: true, ..inherited };
    let plan = Plan::process(process, &namespaces, &inherited, Choices::default()).unwrap();
    assert!(!plan.steps.iter().any(|step| matches!(step, Step::JoinContainer { .. })));
    assert_eq!(plan.request.joins.iter().map(|(_, kinds)| *kinds).collect::<Vec<_>>(), [kinds]);
    assert!(plan.request.pids.is_some());
}

#[test]
fn without_pivot_root_the_hosts_proc_is_hidden() {
    let choices = Choices { no_pivot_root: true, ..Choices::default() };
    let mountinfo = "22 27 0:21 / /proc rw - proc proc rw\n23 27 0:22 / /sys rw - sysfs sysfs rw\n\
        24 27 0:23 /sub /elsewhere rw shared:1 - proc proc rw\n25 1 8:1 / / rw - ext4 /dev/a rw";
    let facts = Facts { system_mounts: system_mounts(mountinfo), ..Facts::default() };
    let plan = plan_with(&spec(), choices, &facts).unwrap();
    let lines = lines(&plan);
    let place = lines.iter().position(|line| line == "hide /proc of the host").unwrap();
    assert_eq!(
        lines[place..place + 3],
        ["hide /proc of the host", "hide /sys of the host", "change root"]
    );
    assert!(!lines.contains(&"pivot root".to_owned()));
}

#[test]
fn cgroup_mounts_follow_the_host() {
    let mut spec = spec();
    spec["mounts"].as_array_mut().unwrap().push(json!({
        "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"] }));
    let hierarchy = Hierarchy {
        name: "cpu,cpuacct".to_owned(),
        options: "cpu,cpuacct".to_owned(),
        directory: "/sys/fs/cgroup/cpu,cpuacct/c1".into(),
    };
    let v1 = Facts { hierarchies: vec![hierarchy], ..Facts::default() };
    let find = |spec: &Value, facts: &Facts| -> Vec<String> {
        let plan = plan_with(spec, Choices::default(), facts).unwrap();
        lines(&plan).into_iter().filter(|line| line.contains("/sys/fs/cgroup")).collect()
    };
    assert_eq!(
        find(&spec, &v1),
        [
            "mount tmpfs on /sys/fs/cgroup",
            "mount cgroup on /sys/fs/cgroup/cpu,cpuacct",
            "symlink /sys/fs/cgroup/cpu",
            "symlink /sys/fs/cgroup/cpuacct",
            "make /sys/fs/cgroup read-only",
        ]
    );
    let v2 = Facts { is_unified: true, ..Facts::default() };
    assert_eq!(find(&spec, &v2), ["mount cgroup2 on /sys/fs/cgroup"]);
    spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|one| one["type"] != "cgroup");
    let bound = "bind /sys/fs/cgroup/cpu,cpuacct/c1 on /sys/fs/cgroup/cpu,cpuacct";
    assert!(find(&spec, &v1).contains(&bound.to_owned()));
}

#[test]
fn hooks_stand_at_their_moments() {
    let mut spec = spec();
    let hook = json!([{ "path": "/bin/hook" }]);
    spec["hooks"] = json!({ "createRuntime": hook, "createContainer": hook,
        "startContainer": hook, "poststop": hook });
    let lines = lines(&plan(&spec).unwrap());
    let at = |line: &str| lines.iter().position(|known| known == line).unwrap();
    assert!(at("wait for the hooks") < at("createContainer hook /bin/hook"));
    assert!(at("change to directory /bundle") < at("createContainer hook /bin/hook"));
    assert!(at("createContainer hook /bin/hook") < at("pivot root"));
    assert!(at("wait for start") < at("startContainer hook /bin/hook"));
    for bad in [json!([{ "path": "relative" }]), json!([{ "path": "/a", "timeout": 0 }])] {
        spec["hooks"]["createRuntime"] = bad;
        assert_eq!(plan(&spec).unwrap_err().kind(), Kind::InvalidArgument);
    }
}

#[test]
fn selinux_labels_the_program_and_what_is_mounted() {
    let mut spec = spec();
    spec["process"]["selinuxLabel"] = "u:r:container_t:s0:c1,c2".into();
    spec["linux"]["mountLabel"] = "u:object_r:container_file_t:s0:c1,c2".into();
    let modules = Modules { has_selinux: true, ..Modules::default() };
    let plan = plan_on(&spec, Choices::default(), &Facts::default(), modules).unwrap();
    // While the host's procfs is there, and nobody else's.
    assert_eq!(lines(&plan)[0], "apply SELinux label u:r:container_t:s0:c1,c2");
    let mut labelled = Vec::new();
    for step in &plan.steps {
        if let Step::Mount { kind, options, .. } = step
            && options.iter().any(|(key, _)| key.to_string() == "context")
        {
            labelled.push(kind.to_string());
        }
    }
    assert_eq!(labelled, ["tmpfs"]);
}

#[test]
fn what_is_of_other_systems_is_refused() {
    for change in [
        (|spec| spec["process"]["user"]["username"] = "x".into()) as fn(&mut Value),
        |spec| spec["process"]["commandLine"] = "x y".into(),
        |spec| spec["windows"] = json!({ "layerFolders": [] }),
        |spec| spec["solaris"] = json!({}),
    ] {
        let err = refused(change);
        assert_eq!(err.kind(), Kind::Unsupported, "{err:#}");
    }
}

#[test]
fn what_is_not_offered_is_refused() {
    for change in [
        (|spec| spec["linux"]["mountLabel"] = "x".into()) as fn(&mut Value),
        |spec| spec["process"]["selinuxLabel"] = "x".into(),
        |spec| spec["process"]["apparmorProfile"] = "x".into(),
        |spec| spec["linux"]["personality"] = json!({ "domain": "LINUX", "flags": ["x"] }),
        |spec| {
            let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|one| one["type"] != "mount");
        },
    ] {
        let err = refused(change);
        assert_eq!(err.kind(), Kind::Unsupported, "{err:#}");
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    for change in [
        (|spec| spec["process"]["args"] = json!([])) as fn(&mut Value),
        |spec| spec["process"]["cwd"] = "a".into(),
        |spec| spec["process"]["env"] = json!(["=x"]),
        |spec| spec["process"]["args"] = json!(["a\u{0}b"]),
        |spec| spec["process"]["user"]["additionalGids"] = (0..2000).collect::<Vec<u32>>().into(),
        |spec| spec["mounts"][0]["destination"] = "/".into(),
        |spec| spec["mounts"][0]["options"] = json!(["tmpcopyup"]),
        |spec| spec["mounts"][1]["destination"] = "/proc".into(),
        |spec| spec["mounts"][2]["source"] = "a\u{0}b".into(),
        |spec| spec["linux"]["rootfsPropagation"] = "loud".into(),
        |spec| spec["linux"]["timeOffsets"] = json!({ "boottime": { "secs": 1 } }),
        |spec| spec["linux"]["sysctl"] = json!({ "kernel.shmmax": "1" }),
        |spec| spec["linux"]["sysctl"] = json!({ "net.ipv4..x": "1" }),
        |spec| {
            spec["linux"]["devices"] =
                json!([{ "path": "/dev/x", "type": "c", "major": -1, "minor": 0 }])
        },
        |spec| {
            spec.as_object_mut().unwrap().remove("root");
        },
    ] {
        let err = refused(change);
        assert_eq!(err.kind(), Kind::InvalidArgument, "{err:#}");
    }
}

#[test]
fn the_mounts_of_a_plan_can_be_made_alone() {
    let whole = plan(&spec()).unwrap();
    assert_eq!(whole.root(), Some(Path::new("/bundle/rootfs")));
    let alone = whole.mounts_only();
    let expected = "part the mounts from the host's
mount root filesystem /bundle/rootfs
mount proc on /proc
mount tmpfs on /dev
bind /bundle/data on /data
make directory /work
wait for start";
    assert_eq!(lines(&alone).join("\n"), expected);
    // Nothing of the container's own is needed for it.
    let trees = alone.sources.iter().filter(|source| matches!(source, Source::Tree(_)));
    assert_eq!((alone.sources.len(), trees.count()), (2, 2));
    assert_eq!(alone.request.namespaces, u64::from(libc::CLONE_NEWNS.cast_unsigned()));
    assert_eq!(alone.mappings, None);
}
