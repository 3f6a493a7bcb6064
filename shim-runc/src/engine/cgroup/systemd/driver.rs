//! What a cgroup has done by systemd. For one that is no unit it is nothing: the files are all.

use std::{collections::HashMap, pin::Pin, time::Duration};

use oci_spec::runtime::{LinuxPids, LinuxResources};
use shim_core::{Result, model::Pid};

use super::{
    LIMIT, Systemd, annotations, properties,
    unit::{Kind, Unit},
};
use crate::engine::cgroup::{Cgroup, Mode, freeze, limits};

/// How long systemd gets in the `delete` mode, to which containerd gives five seconds. A scope that
/// has lost its processes ends in any case.
const LIMIT_AT_THE_END: Duration = Duration::from_secs(3);

/// The file that counts processes, as the spec's `unified` map names it.
const PIDS: &str = "pids.max";

impl Cgroup {
    /// Whether it can't be without a process: a scope ends with its last one, and has to have one
    /// before the container's own is born in it.
    pub(crate) fn needs_keeper(&self) -> bool {
        self.unit().is_some_and(|unit| unit.kind() == Kind::Scope)
    }

    /// Has systemd start the unit, with a keeper if it needs one. The spec's annotations may name
    /// properties.
    ///
    /// # Errors
    /// `FailedPrecondition` when there is such a unit, `InvalidArgument` for limits that make no
    /// sense, `Unavailable` without systemd, `TimedOut`.
    pub(crate) async fn start_unit(
        &self,
        keeper: Option<Pid>,
        resources: Option<&LinuxResources>,
        annotations: &HashMap<String, String>,
    ) -> Result<()> {
        let Some(unit) = self.unit() else { return Ok(()) };
        let mut all = properties::of_unit(unit, keeper, self.mode());
        if let Some(resources) = resources {
            all.extend(properties::of_resources(resources, self.mode())?);
        }
        all.extend(annotations::properties(annotations)?);
        boxed(Systemd::of_host(LIMIT).start(unit, &all)).await
    }

    /// Tells systemd of changed limits.
    pub(in crate::engine::cgroup) async fn update_unit(
        &self,
        resources: &LinuxResources,
    ) -> Result<()> {
        let Some(unit) = self.unit() else { return Ok(()) };
        limits::check(self, resources)?;
        let all = properties::of_update(resources, self.mode())?;
        boxed(self.set_unit(unit, &all)).await
    }

    async fn set_unit(&self, unit: &Unit, all: &[properties::Property]) -> Result<()> {
        let systemd = Systemd::of_host(LIMIT);
        // On v1 systemd writes all device rules anew, and for a moment there are none but a denial.
        let has_to_stand_still = self.mode() != Mode::V2 && !freeze::frozen(self)?;
        if !has_to_stand_still {
            return systemd.set(unit, all).await;
        }
        freeze::freeze(self).await?;
        let set = systemd.set(unit, all).await;
        freeze::thaw(self).and(set)
    }

    /// Has systemd stop the unit, with what runs in it.
    pub(in crate::engine::cgroup) async fn stop_unit(&self) -> Result<()> {
        match self.unit() {
            Some(unit) => boxed(Systemd::of_host(LIMIT).stop(unit)).await,
            None => Ok(()),
        }
    }

    /// The same where there is no runtime, by when containerd gives up.
    pub(in crate::engine::cgroup) fn stop_unit_blocking(&self) -> Result<()> {
        match self.unit() {
            Some(unit) => Systemd::of_host(LIMIT_AT_THE_END).stop_blocking(unit),
            None => Ok(()),
        }
    }

    /// Takes back the room that [`with_room`] has made for a keeper.
    ///
    /// # Errors
    /// When the limit can't be set.
    pub(crate) fn without_room(&self, resources: &LinuxResources) -> Result<()> {
        limits::set(self, &counted(resources))
    }
}

/// An errand in a box of its own: the futures of containers that are no units are not to carry the
/// weight of it.
fn boxed<'a>(
    errand: impl Future<Output = Result<()>> + Send + 'a,
) -> Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>> {
    Box::pin(errand)
}

/// Limits with room for one process more than the container's.
pub(crate) fn with_room(resources: &LinuxResources) -> LinuxResources {
    let mut roomy = resources.clone();
    if let Some(pids) = roomy.pids().filter(|pids| pids.limit() > 0) {
        let mut more = LinuxPids::default();
        more.set_limit(pids.limit().saturating_add(1));
        roomy.set_pids(Some(more));
    }
    if let Some(limit) = roomy.unified_mut().as_mut().and_then(|values| values.get_mut(PIDS))
        && let Ok(number) = limit.trim().parse::<u32>()
    {
        *limit = number.saturating_add(1).to_string();
    }
    roomy
}

/// The limits on processes alone.
fn counted(resources: &LinuxResources) -> LinuxResources {
    let mut counted = LinuxResources::default();
    counted.set_devices(None);
    counted.set_pids(*resources.pids());
    let unified = resources.unified().as_ref().and_then(|values| values.get_key_value(PIDS));
    counted
        .set_unified(unified.map(|(name, limit)| HashMap::from([(name.clone(), limit.clone())])));
    counted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_a_keeper_until_it_goes() {
        let parse = |text: &str| serde_json::from_str::<LinuxResources>(text).unwrap();
        for (exact, roomy, counted_alone) in [
            (
                r#"{"pids": {"limit": 1}, "cpu": {"shares": 7}}"#,
                r#"{"pids": {"limit": 2}, "cpu": {"shares": 7}}"#,
                r#"{"pids": {"limit": 1}}"#,
            ),
            (
                r#"{"unified": {"pids.max": " 5", "memory.max": "9"}}"#,
                r#"{"unified": {"pids.max": "6", "memory.max": "9"}}"#,
                r#"{"unified": {"pids.max": " 5"}}"#,
            ),
            // No limit has room for everybody.
            (
                r#"{"pids": {"limit": -1}}"#,
                r#"{"pids": {"limit": -1}}"#,
                r#"{"pids": {"limit": -1}}"#,
            ),
            (
                r#"{"unified": {"pids.max": "max"}}"#,
                r#"{"unified": {"pids.max": "max"}}"#,
                r#"{"unified": {"pids.max": "max"}}"#,
            ),
            (r#"{"cpu": {"shares": 7}}"#, r#"{"cpu": {"shares": 7}}"#, "{}"),
        ] {
            assert_eq!(with_room(&parse(exact)), parse(roomy), "{exact}");
            assert_eq!(counted(&parse(exact)), parse(counted_alone), "{exact}");
        }
    }
}
