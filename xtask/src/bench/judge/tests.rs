//! The judge, with hand-made measurements.

use super::*;
use crate::bench::found::{Row, row_of};

fn scenario(name: &str, values: &[(&str, &[(&str, f64)])]) -> Scenario {
    let rows = values.iter().map(|(row, shims)| {
        let shims = shims.iter();
        let shims = shims.flat_map(|(shim, value)| row_of(row, "ms", shim, vec![*value]).shims);
        let shims = shims.collect();
        Row { name: (*row).to_owned(), unit: "ms".to_owned(), at: Vec::new(), shims }
    });
    Scenario {
        name: name.to_owned(),
        title: "",
        command: String::new(),
        plots: Vec::new(),
        rows: rows.collect(),
    }
}

fn line(scenarios: &[Scenario], name: &str, peer: &str) -> String {
    let verdicts = judge(scenarios);
    let verdict = verdicts.iter().find(|one| one.name == name && one.peer == peer).unwrap();
    verdict.cells().join(" | ")
}

#[test]
fn ten_times_faster_is_exactly_enough() {
    let of = |own| scenario("life", &[("contract", &[("native", own), ("go+runc", 100.0)])]);
    let name = "shim start, Create, Start";
    let enough = "shim start, Create, Start | 10.0 ms | go+runc 100 ms | 10.0× faster | ≥ 10× | ok";
    assert_eq!(line(&[of(10.0)], name, "go+runc"), enough);
    assert!(line(&[of(10.1)], name, "go+runc").ends_with("| 9.9× faster | ≥ 10× | short"));
}

#[test]
fn the_floor_is_in_a_scenario_of_its_own() {
    let life = scenario("life", &[("create + start", &[("native", 5.0)])]);
    let floor = scenario("floor", &[("create + start", &[("floor", 2.5)])]);
    let found = line(&[life, floor], "Create and Start", "floor");
    assert_eq!(found, "Create and Start | 5.00 ms | floor 2.50 ms | 2.00× | ≤ 2× | ok");
}

#[test]
fn a_share_is_in_percent() {
    let whole = [("native", 26.0), ("go+runc", 100.0)];
    let life = scenario("containerd", &[("whole life", &whole)]);
    let found = line(&[life], "a life through containerd", "go+runc");
    assert!(found.ends_with("| 26.0 % | ≤ 25 % | short"), "{found}");
}

#[test]
fn as_much_is_not_less() {
    let of = |own| scenario("stdio", &[("stdout cpu", &[("native", own), ("go+runc", 10.0)])]);
    let name = "stdout: the shim's CPU";
    assert!(line(&[of(10.0)], name, "go+runc").ends_with("| less | short"));
    assert!(line(&[of(9.0)], name, "go+runc").ends_with("| less | ok"));
}

#[test]
fn what_was_not_measured_is_neither_ok_nor_short() {
    let verdicts = judge(&[]);
    assert!(verdicts.iter().all(|verdict| !verdict.is_measured()));
    let life = scenario("life", &[("contract", &[("native", 1.0), ("go+runc", 0.0)])]);
    let found = line(&[life], "shim start, Create, Start", "go+runc");
    assert!(found.contains("life: contract of go+runc was not measured"), "{found}");
    assert!(found.ends_with("| failed"), "{found}");
}

#[test]
fn no_target_is_there_twice() {
    for (at, one) in TARGETS.iter().enumerate() {
        let again = TARGETS[..at].iter().find(|other| {
            (other.ours.scenario, other.ours.row, other.peer.shim)
                == (one.ours.scenario, one.ours.row, one.peer.shim)
        });
        assert!(again.is_none(), "{}", one.name);
    }
}
