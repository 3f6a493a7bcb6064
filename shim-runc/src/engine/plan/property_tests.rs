//! Plans of random specs. One that is not as every plan has to be is made as short as it can be.

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::{Value, json};

use super::{invariants, tests};
use crate::engine::dice::Dice;

/// One thing that a spec asks for: where it stands, and what it is. A `-` at the end adds to a list.
type Piece = (String, Value);

const ROUNDS: u64 = 600;

/// Words that a spec may have anywhere, and that mean something somewhere.
const WORDS: [&str; 36] = [
    "",
    ".",
    "..",
    "/",
    "//",
    "/..",
    "/../..",
    "../../x",
    "/a",
    "/a/./b",
    "a/../../b",
    "/proc",
    "/proc/",
    "/proc/self",
    "/proc/cpuinfo",
    "/sys",
    "/sys/fs/cgroup",
    "/dev",
    "/dev/../..",
    "/dev/null",
    "/dev/pts",
    "rbind",
    "bind",
    "ro",
    "rw",
    "remount",
    "tmpcopyup",
    "rshared",
    "mode=755",
    "size=1k",
    "x=y",
    "a b",
    "PATH=/bin",
    "HOME=",
    "=",
    "ü\u{0}",
];

const KINDS: [&str; 9] =
    ["proc", "sysfs", "tmpfs", "bind", "devpts", "mqueue", "cgroup", "cgroup2", "none"];

fn word(dice: &mut Dice) -> Value {
    match dice.roll(8) {
        0 => json!(format!("{}/{}", dice.pick(&WORDS), dice.pick(&WORDS))),
        1 => json!("x".repeat(usize::try_from(dice.roll(6000)).unwrap())),
        _ => json!(dice.pick(&WORDS)),
    }
}

fn words(dice: &mut Dice) -> Value {
    (0..dice.roll(4)).map(|_| word(dice)).collect()
}

fn number(dice: &mut Dice) -> u64 {
    dice.pick(&[0, 1, 5, 1000, 65_535, 65_536, u64::from(u32::MAX)])
}

fn mount(dice: &mut Dice) -> Value {
    json!({ "destination": word(dice), "type": dice.pick(&KINDS), "source": word(dice),
        "options": words(dice) })
}

fn device(dice: &mut Dice) -> Value {
    json!({ "path": word(dice), "type": dice.pick(&["c", "b", "u", "p", "a"]),
        "major": number(dice), "minor": number(dice), "fileMode": dice.roll(0o20000),
        "uid": number(dice), "gid": number(dice) })
}

fn hook(dice: &mut Dice) -> Value {
    json!({ "path": word(dice), "args": words(dice), "env": words(dice), "timeout": 1 + dice.roll(9) })
}

fn namespace(dice: &mut Dice) -> Value {
    let kind = dice.pick(&["pid", "network", "ipc", "uts", "user", "cgroup", "time", "mount"]);
    match dice.roll(2) {
        0 => json!({ "type": kind }),
        _ => json!({ "type": kind, "path": word(dice) }),
    }
}

fn capabilities(dice: &mut Dice) -> Value {
    let names = ["CAP_KILL", "CAP_SYS_PTRACE", "CAP_SYS_ADMIN", "CAP_CHOWN"];
    (0..dice.roll(4)).map(|_| json!(dice.pick(&names))).collect()
}

fn mappings(dice: &mut Dice) -> Value {
    json!([{ "containerID": number(dice), "hostID": number(dice), "size": number(dice) }])
}

fn piece(dice: &mut Dice) -> Piece {
    let (place, value) = match dice.roll(24) {
        0..=5 => ("/mounts/-", mount(dice)),
        6 => ("/linux/devices/-", device(dice)),
        7 => ("/linux/namespaces/-", namespace(dice)),
        8 => ("/linux/maskedPaths/-", word(dice)),
        9 => ("/linux/readonlyPaths/-", word(dice)),
        10 => ("/linux/uidMappings", mappings(dice)),
        11 => ("/linux/gidMappings", mappings(dice)),
        12 => {
            let key = dice.pick(&[
                "net.a",
                "net/../../x",
                "kernel.shmmax",
                "net..",
                "fs.mqueue.a",
                "vm.x",
            ]);
            ("/linux/sysctl", json!({ key: word(dice) }))
        }
        13 => (
            "/linux/rootfsPropagation",
            json!(dice.pick(&["", "shared", "rslave", "private", "odd"])),
        ),
        14 => ("/process/env", words(dice)),
        15 => ("/process/args", words(dice)),
        16 => ("/process/cwd", word(dice)),
        17 => ("/process/noNewPrivileges", json!(dice.roll(2) == 0)),
        18 => (
            "/process/capabilities",
            json!({ "bounding": capabilities(dice),
            "permitted": capabilities(dice), "effective": capabilities(dice),
            "inheritable": capabilities(dice), "ambient": capabilities(dice) }),
        ),
        19 => (
            "/process/user",
            json!({ "uid": number(dice), "gid": number(dice),
            "additionalGids": [number(dice)], "umask": number(dice) }),
        ),
        20 => ("/process/apparmorProfile", word(dice)),
        21 => ("/root", json!({ "path": word(dice), "readonly": dice.roll(2) == 0 })),
        22 => {
            let moment = dice.pick(&[
                "prestart",
                "createRuntime",
                "createContainer",
                "startContainer",
                "poststop",
            ]);
            ("/hooks", json!({ moment: [hook(dice)] }))
        }
        _ => ("/hostname", word(dice)),
    };
    (place.to_owned(), value)
}

/// The usual spec with these pieces in it.
fn spec(pieces: &[Piece]) -> Value {
    let mut spec = tests::spec();
    for (place, value) in pieces {
        let (above, name) = place.rsplit_once('/').expect("a place has a slash");
        if name == "-" {
            let (above, list) = above.rsplit_once('/').expect("a list has a name");
            let list = &mut spec.pointer_mut(above).expect("it is there")[list];
            match list.as_array_mut() {
                Some(list) => list.push(value.clone()),
                None => *list = json!([value]),
            }
        } else {
            spec.pointer_mut(above).expect("it is there")[name] = value.clone();
        }
    }
    spec
}

/// What is wrong with a spec's plans; and whether there are any.
fn judge(pieces: &[Piece]) -> Result<bool, String> {
    let Ok(spec) = serde_json::from_value(spec(pieces)) else { return Ok(false) };
    let judged = catch_unwind(AssertUnwindSafe(|| invariants::check_all(&spec).is_ok()));
    judged.map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("it panics").to_owned()
    })
}

/// Leaves pieces out for as long as it still is wrong.
fn shortest<T>(mut pieces: Vec<T>, is_wrong: impl Fn(&[T]) -> bool) -> Vec<T> {
    let mut at = 0;
    while at < pieces.len() {
        let left_out = pieces.remove(at);
        if !is_wrong(&pieces) {
            pieces.insert(at, left_out);
            at += 1;
        }
    }
    pieces
}

#[test]
fn plans_of_random_specs_are_as_every_plan() {
    let mut dice = Dice(3);
    let mut planned = 0;
    for round in 0..ROUNDS {
        let pieces: Vec<_> = (0..=dice.roll(1 + round % 12)).map(|_| piece(&mut dice)).collect();
        match judge(&pieces) {
            Ok(is_planned) => planned += u64::from(is_planned),
            Err(_) => {
                let pieces = shortest(pieces, |pieces| judge(pieces).is_err());
                let why = judge(&pieces).unwrap_err();
                panic!("{why}: {}", json!(pieces));
            }
        }
    }
    // Else it would only be seen that nonsense is refused.
    assert!(planned > ROUNDS / 10, "{planned} of {ROUNDS} are planned");
}

#[test]
fn what_is_wrong_is_made_short() {
    let is_wrong = |pieces: &[u32]| pieces.contains(&3) && pieces.contains(&7);
    assert_eq!(shortest((0..20).collect(), is_wrong), [3, 7]);
}
