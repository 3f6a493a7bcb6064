//! Cgroups that systemd makes: each is a unit of it, a transient scope mostly, asked for by D-Bus.
//!
//! Limits go to systemd as properties of the unit and then into the files, as with runc. Every errand
//! has a time limit, since systemd may be busy; none blocks the runtime's thread.

mod annotations;
mod bus;
mod devices;
mod driver;
mod gvariant;
mod host;
mod properties;
#[cfg(test)]
mod tests;
mod unified;
pub(super) mod unit;

use std::{future::Future, time::Duration};

use shim_core::{Error, Kind, Result};

pub(crate) use self::driver::with_room;
use self::{
    bus::{Address, Bus, Failed, Value},
    properties::Property,
    unit::Unit,
};

/// How long systemd gets for an errand. It can be slow on a host that is starting hundreds of
/// containers.
const LIMIT: Duration = Duration::from_secs(30);

/// The systemd that makes our units.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Systemd {
    addresses: Vec<Address>,
    limit: Duration,
}

impl Systemd {
    /// That of this host, or of its user, with a limit on each errand.
    fn of_host(limit: Duration) -> Self {
        Self { addresses: host::addresses(), limit }
    }

    /// Starts a transient unit, and waits until it stands.
    ///
    /// # Errors
    /// `FailedPrecondition` when there is a unit of that name, `Unavailable` without systemd,
    /// `TimedOut`, or what systemd says.
    async fn start(&self, unit: &Unit, properties: &[Property]) -> Result<()> {
        let start = async {
            let mut bus = Bus::connect(&self.addresses).await?;
            let properties = known(&mut bus, properties).await?;
            let auxiliary = Value::Array("(sa(sv))".to_owned(), vec![]);
            let body = vec![text(unit.name()), text("replace"), pairs(&properties), auxiliary];
            let mut result = bus.job("StartTransientUnit", body.clone()).await;
            if result.as_ref().is_err_and(|failed| failed.is("UnitExists")) {
                // One that has failed stays until it is reset.
                reset(&mut bus, unit).await;
                result = bus.job("StartTransientUnit", body).await;
            }
            match result.map_err(refused)?.as_str() {
                "done" => Ok(()),
                result => {
                    let why = format!("its job ended with {result:?}");
                    reset(&mut bus, unit).await;
                    Err(Error::other(why))
                }
            }
        };
        self.within("start", unit, start).await
    }

    /// Changes properties of a unit until it is stopped.
    ///
    /// # Errors
    /// `Unavailable` without systemd, `TimedOut`, or what systemd says.
    async fn set(&self, unit: &Unit, properties: &[Property]) -> Result<()> {
        if properties.is_empty() {
            return Ok(());
        }
        let set = async {
            let mut bus = Bus::connect(&self.addresses).await?;
            let properties = known(&mut bus, properties).await?;
            let body = vec![text(unit.name()), Value::Bool(true), pairs(&properties)];
            bus.call("SetUnitProperties", body).await.map(drop).map_err(Error::from)
        };
        self.within("set properties of", unit, set).await
    }

    /// Stops a unit with all that runs in it, and waits until it is gone. One that is not there is
    /// no error.
    ///
    /// # Errors
    /// `Unavailable` without systemd, `TimedOut`, or what systemd says.
    async fn stop(&self, unit: &Unit) -> Result<()> {
        let stop = async {
            let mut bus = Bus::connect(&self.addresses).await?;
            match bus.job("StopUnit", vec![text(unit.name()), text("replace")]).await {
                Ok(result) if result == "done" => {}
                // What is left of it is found out by whoever removes the cgroup.
                Ok(result) => {
                    log::warn!("stop unit {}: its job ended with {result:?}", unit.name())
                }
                Err(failed) if failed.is("NoSuchUnit") => return Ok(()),
                Err(failed) => return Err(failed.into()),
            }
            reset(&mut bus, unit).await;
            Ok(())
        };
        self.within("stop", unit, stop).await
    }

    /// The same where there is no runtime.
    ///
    /// # Errors
    /// As [`Self::stop`].
    fn stop_blocking(&self, unit: &Unit) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(self.stop(unit))
    }

    async fn within(
        &self,
        what: &str,
        unit: &Unit,
        errand: impl Future<Output = Result<()>>,
    ) -> Result<()> {
        let done = tokio::time::timeout(self.limit, errand).await.unwrap_or_else(|_| {
            let why = format!("systemd was not done within {} s", self.limit.as_secs_f32());
            Err(Error::new(Kind::TimedOut, why))
        });
        done.map_err(|err| err.context(format!("{what} unit {}", unit.name())))
    }
}

/// What this systemd knows of some properties. The others are only written to the files.
async fn known(bus: &mut Bus, properties: &[Property]) -> Result<Vec<Property>> {
    let mut properties = properties.to_vec();
    if properties.iter().any(|property| property.since > 0) {
        let told = bus.property("Version").await?;
        let version = version(told.as_text().unwrap_or_default());
        properties.retain(|property| property.since <= version);
    }
    Ok(properties)
}

/// The number in `252.39-1~deb12u1` or `v255`; 0 where there is none.
fn version(text: &str) -> u32 {
    let text = text.trim_start_matches('v');
    let end = text.find(|char: char| !char.is_ascii_digit()).unwrap_or(text.len());
    text[..end].parse().unwrap_or(0)
}

/// Has systemd forget a unit that has failed.
async fn reset(bus: &mut Bus, unit: &Unit) {
    // One that has not failed is not there any more.
    let _ = bus.call("ResetFailedUnit", vec![text(unit.name())]).await;
}

fn refused(failed: Failed) -> Error {
    let exists = failed.is("UnitExists");
    let err = Error::from(failed);
    if exists { err.with_kind(Kind::FailedPrecondition) } else { err }
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn pairs(properties: &[Property]) -> Value {
    Value::Array("(sv)".to_owned(), properties.iter().map(Property::pair).collect())
}
