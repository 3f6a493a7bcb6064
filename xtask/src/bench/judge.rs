//! What was measured against what we want it to be: a line a target.
//!
//! A target that was missed is no failure: time depends on the machine, and a build must not.

use super::found::Scenario;

const OURS: &str = "native";

/// How ours has to stand to the other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Bound {
    /// So many times faster, at least.
    Faster(f64),
    /// So many times the other, at most.
    Times(f64),
    /// So many percent of the other, at most.
    Percent(f64),
    /// Less than the other.
    Less,
}

/// A row of one shim in a scenario.
#[derive(Clone, Copy, Debug)]
struct Place {
    scenario: &'static str,
    row: &'static str,
    shim: &'static str,
}

/// Something that we want.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    /// What is compared, and when.
    name: &'static str,
    ours: Place,
    peer: Place,
    bound: Bound,
}

/// A target and what came of it.
#[derive(Clone, Debug)]
pub(super) struct Verdict {
    pub(super) name: &'static str,
    /// The peer's name.
    pub(super) peer: &'static str,
    /// The scenario of ours.
    pub(super) scenario: &'static str,
    /// Ours, the peer's, and the unit; or what was not measured.
    pub(super) values: Result<(f64, f64, String), String>,
    bound: Bound,
}

/// A target about the same row of the same scenario.
const fn target(
    name: &'static str,
    scenario: &'static str,
    row: &'static str,
    peer: &'static str,
    bound: Bound,
) -> Target {
    let ours = Place { scenario, row, shim: OURS };
    Target { name, ours, peer: Place { scenario, row, shim: peer }, bound }
}

const fn to_floor(name: &'static str, scenario: &'static str, floor: &'static str) -> Target {
    let row = "create + start";
    let ours = Place { scenario, row, shim: OURS };
    let peer = Place { scenario: floor, row, shim: "floor" };
    Target { name, ours, peer, bound: Bound::Times(2.0) }
}

const IDLE_CONTRACT: &str = "shim start, Create, Start; after idleness";
const IDLE_THROUGH: &str = "a life through containerd, after idleness";

/// What we want, in the order of the page.
const TARGETS: [Target; 23] = [
    target("shim start, Create, Start", "life", "contract", "go+runc", Bound::Faster(10.0)),
    target(IDLE_CONTRACT, "idle", "contract", "go+runc", Bound::Faster(10.0)),
    target("shim start, Create, Start", "life", "contract", "go+crun", Bound::Faster(5.0)),
    target(IDLE_CONTRACT, "idle", "contract", "go+crun", Bound::Faster(5.0)),
    to_floor("Create and Start", "life", "floor"),
    to_floor("Create and Start, after idleness", "idle", "floor, idle"),
    target("exec until it runs", "life", "exec", "go+crun", Bound::Faster(5.0)),
    target("exec until it runs, after idleness", "idle", "exec", "go+crun", Bound::Faster(5.0)),
    target("shim start", "life", "shim start", "go+runc", Bound::Faster(5.0)),
    target("shim start, after idleness", "idle", "shim start", "go+runc", Bound::Faster(5.0)),
    through("a life through containerd", "containerd", "go+runc", 25.0),
    through("a life through containerd", "containerd", "go+crun", 33.0),
    through("a life through containerd", "containerd", "rust+crun", 40.0),
    through(IDLE_THROUGH, "containerd, idle", "go+runc", 25.0),
    through(IDLE_THROUGH, "containerd, idle", "go+crun", 33.0),
    through(IDLE_THROUGH, "containerd, idle", "rust+crun", 40.0),
    target("many at once, until all run", "many", "all running", "go+crun", Bound::Faster(3.0)),
    memory("50 idle containers: private memory", "private memory", "go+runc", 20.0),
    memory("50 idle containers: private memory", "private memory", "rust+runc", 50.0),
    memory("50 idle containers: with what is shared", "pss dirty", "go+runc", 20.0),
    memory("50 idle containers: with what is shared", "pss dirty", "rust+runc", 50.0),
    target("stdout: the time", "stdio", "stdout time", "go+runc", Bound::Less),
    target("stdout: the shim's CPU", "stdio", "stdout cpu", "go+runc", Bound::Less),
];

const fn through(
    name: &'static str,
    scenario: &'static str,
    peer: &'static str,
    percent: f64,
) -> Target {
    target(name, scenario, "whole life", peer, Bound::Percent(percent))
}

const fn memory(name: &'static str, row: &'static str, peer: &'static str, percent: f64) -> Target {
    target(name, "density", row, peer, Bound::Percent(percent))
}

/// Judges what was measured by all targets.
pub(super) fn judge(scenarios: &[Scenario]) -> Vec<Verdict> {
    TARGETS.iter().map(|target| target.judge(scenarios)).collect()
}

impl Target {
    fn judge(&self, scenarios: &[Scenario]) -> Verdict {
        let Self { name, ours, peer, bound } = *self;
        let values = ours.find(scenarios).and_then(|(own, unit)| {
            let (other, _) = peer.find(scenarios)?;
            Ok((own, other, unit))
        });
        Verdict { name, peer: peer.shim, scenario: ours.scenario, values, bound }
    }
}

impl Place {
    fn find(self, scenarios: &[Scenario]) -> Result<(f64, String), String> {
        let Self { scenario, row, shim } = self;
        let missing = |what: &str| format!("{what} was not measured");
        let found = scenarios.iter().find(|one| one.name == scenario);
        let found = found.ok_or_else(|| missing(scenario))?;
        let found = found.rows.iter().find(|one| one.name == row);
        let found = found.ok_or_else(|| missing(&format!("{scenario}: {row}")))?;
        let value = found.value(shim).filter(|value| value.is_finite() && *value > 0.0);
        let value = value.ok_or_else(|| missing(&format!("{scenario}: {row} of {shim}")))?;
        Ok((value, found.unit.clone()))
    }
}

impl Bound {
    /// How ours stands to the other, in this bound's words.
    fn ratio(self, own: f64, other: f64) -> String {
        match self {
            Self::Faster(_) => format!("{:.1}× faster", other / own),
            Self::Times(_) => format!("{:.2}×", own / other),
            Self::Percent(_) | Self::Less => format!("{:.1} %", 100.0 * own / other),
        }
    }

    fn wanted(self) -> String {
        match self {
            Self::Faster(times) => format!("≥ {times}×"),
            Self::Times(times) => format!("≤ {times}×"),
            Self::Percent(percent) => format!("≤ {percent} %"),
            Self::Less => "less".to_owned(),
        }
    }

    fn holds(self, own: f64, other: f64) -> bool {
        match self {
            Self::Faster(times) => other >= times * own,
            Self::Times(times) => own <= times * other,
            Self::Percent(percent) => own <= percent / 100.0 * other,
            Self::Less => own < other,
        }
    }
}

impl Verdict {
    /// Whether both values are there.
    pub(super) fn is_measured(&self) -> bool {
        self.values.is_ok()
    }

    /// The line's parts: name, ours, peer's, ratio, target, and the last word.
    pub(super) fn cells(&self) -> [String; 6] {
        let Self { name, peer, values, bound, .. } = self;
        let wanted = bound.wanted();
        match values {
            Ok((own, other, unit)) => [
                (*name).to_owned(),
                format!("{} {unit}", short(*own)),
                format!("{peer} {} {unit}", short(*other)),
                bound.ratio(*own, *other),
                wanted,
                if bound.holds(*own, *other) { "ok" } else { "short" }.to_owned(),
            ],
            Err(why) => {
                let (name, peer) = ((*name).to_owned(), (*peer).to_owned());
                [name, why.clone(), peer, "–".to_owned(), wanted, "failed".to_owned()]
            }
        }
    }
}

/// A number with as many digits as mean something.
pub(super) fn short(value: f64) -> String {
    let digits = match value.abs() {
        value if value < 10.0 => 2,
        value if value < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests;
