//! The process itself: what procfs and a few calls tell of it.

use std::{collections::BTreeMap, env, fs, os::unix::ffi::OsStrExt};

use rustix::{
    process as own, system,
    termios::{isatty, tcgetwinsize},
    thread,
};
use serde_json::{Map, Value, json};

use crate::told;

/// Lines of `/proc/self/status` that say something about how the process was made.
const STATUS: [&str; 22] = [
    "Name",
    "Umask",
    "Uid",
    "Gid",
    "Groups",
    "NSpid",
    "NSpgid",
    "NSsid",
    "SigBlk",
    "SigIgn",
    "CapInh",
    "CapPrm",
    "CapEff",
    "CapBnd",
    "CapAmb",
    "NoNewPrivs",
    "Seccomp",
    "Seccomp_filters",
    "Cpus_allowed_list",
    "Mems_allowed_list",
    "CoreDumping",
    "THP_enabled",
];

/// Files of `/proc/self` that are compared as they are.
const WHOLE: [&str; 11] = [
    "cgroup",
    "uid_map",
    "gid_map",
    "setgroups",
    "oom_score_adj",
    "personality",
    "timerslack_ns",
    "coredump_filter",
    "timens_offsets",
    "comm",
    "loginuid",
];

pub(crate) fn all() -> Value {
    let uname = system::uname();
    let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
    let mut all = json!({
        "argv": env::args().collect::<Vec<_>>(),
        "env": environment(),
        "cwd": told(own::getcwd(Vec::new()).map(|path| text(&path)).map_err(Into::into)),
        "exe": link("/proc/self/exe"),
        "root": link("/proc/self/root"),
        "pid": own::getpid().as_raw_nonzero().get(),
        "ppid": own::getppid().map_or(0, |pid| pid.as_raw_nonzero().get()),
        "hostname": text(uname.nodename()),
        "domainname": text(uname.domainname()),
        "machine": text(uname.machine()),
        "limits": limits(),
        "namespaces": namespaces(),
        "terminal": terminal(),
    });
    let more = all.as_object_mut().expect("an object was made");
    more.insert("status".to_owned(), status());
    more.insert("stat".to_owned(), stat());
    more.insert("prctl".to_owned(), controls());
    for name in WHOLE {
        let read = fs::read_to_string(format!("/proc/self/{name}"));
        more.insert(name.to_owned(), told(read.map(|text| text.trim_end().to_owned())));
    }
    all
}

fn environment() -> Vec<String> {
    let text = |part: &std::ffi::OsStr| String::from_utf8_lossy(part.as_bytes()).into_owned();
    env::vars_os().map(|(name, value)| format!("{}={}", text(&name), text(&value))).collect()
}

fn link(path: &str) -> Value {
    told(fs::read_link(path).map(|path| path.display().to_string()))
}

fn status() -> Value {
    let Ok(text) = fs::read_to_string("/proc/self/status") else { return Value::Null };
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    let kept = lines.filter(|(name, _)| STATUS.contains(name));
    kept.map(|(name, value)| (name.to_owned(), json!(value.trim()))).collect::<Map<_, _>>().into()
}

/// proc_pid_stat(5): the fields behind the name, which may hold anything.
fn stat() -> Value {
    const FIELDS: [(&str, usize); 9] = [
        ("ppid", 4),
        ("pgrp", 5),
        ("session", 6),
        ("tty", 7),
        ("tpgid", 8),
        ("nice", 19),
        ("threads", 20),
        ("rt_priority", 40),
        ("policy", 41),
    ];
    let Ok(text) = fs::read_to_string("/proc/self/stat") else { return Value::Null };
    let behind = text.rsplit_once(") ").map_or("", |(_, behind)| behind);
    let fields: Vec<&str> = behind.split_whitespace().collect();
    let named = FIELDS.into_iter().map(|(name, number)| {
        (name.to_owned(), json!(fields.get(number - 3).copied().unwrap_or_default()))
    });
    named.collect::<Map<_, _>>().into()
}

fn controls() -> Value {
    json!({
        "parent_death_signal": told(own::parent_process_death_signal()
            .map(|signal| signal.map_or(0, |signal| signal.as_raw())).map_err(Into::into)),
        "subreaper": told(own::child_subreaper().map(|pid| pid.is_some()).map_err(Into::into)),
        "dumpable": told(own::dumpable_behavior().map(|kind| format!("{kind:?}"))
            .map_err(Into::into)),
        "keep_capabilities": told(thread::get_keep_capabilities().map_err(Into::into)),
        "secure_bits": told(thread::capabilities_secure_bits().map(|bits| bits.bits())
            .map_err(Into::into)),
    })
}

/// proc_pid_limits(5): a name of 26 columns, then the soft and the hard limit.
fn limits() -> Value {
    let Ok(text) = fs::read_to_string("/proc/self/limits") else { return Value::Null };
    let lines = text.lines().skip(1).filter_map(|line| line.split_at_checked(26));
    let limits = lines.map(|(name, values)| {
        let values: Vec<&str> = values.split_whitespace().take(2).collect();
        (name.trim().to_owned(), json!(values.join(":")))
    });
    limits.collect::<Map<_, _>>().into()
}

/// Who is in which is found out outside: `kind:[number]`.
fn namespaces() -> Value {
    let Ok(entries) = fs::read_dir("/proc/self/ns") else { return Value::Null };
    let links = entries.flatten().map(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        let to = fs::read_link(entry.path());
        (name, told(to.map(|path| path.display().to_string())))
    });
    links.collect::<BTreeMap<_, _>>().into_iter().collect::<Map<_, _>>().into()
}

fn terminal() -> Value {
    let stdin = std::io::stdin();
    if !isatty(&stdin) {
        return json!("none");
    }
    let size = tcgetwinsize(&stdin).map(|size| format!("{}x{}", size.ws_row, size.ws_col));
    json!({ "size": told(size.map_err(Into::into)), "name": link("/proc/self/fd/0") })
}
