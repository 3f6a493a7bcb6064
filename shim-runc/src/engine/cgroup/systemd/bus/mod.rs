//! A small client of D-Bus: calls the methods of one peer, and hears when its jobs end.
//!
//! systemd needs five methods and one signal of it. The library that there is for that, zbus, makes
//! the shim a sixth larger, all of its budget, whatever is left out of it. A connection is made for
//! one errand and closed: nothing of it stays in an idle shim, and nobody has to read the signals
//! that systemd sends to all who are connected.

#[cfg(test)]
pub(super) mod fake;
mod message;
mod value;

use std::{fmt::Write, io, path::PathBuf};

use shim_core::{Context, Error, Kind, Result};
use tokio::net::UnixStream;

pub(crate) use self::{message::Refusal, value::Value};
use self::{
    message::{Call, HEAD, Heard, length_of},
    value::garbled,
};

/// systemd's name on a bus, its object and the interface of that.
const SYSTEMD: &str = "org.freedesktop.systemd1";
const OBJECT: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";

/// The bus's own name, object and interface.
const BUS: &str = "org.freedesktop.DBus";
const BUS_OBJECT: &str = "/org/freedesktop/DBus";

/// What a bus has to pass on.
const JOBS: &str = "type='signal',interface='org.freedesktop.systemd1.Manager',member='JobRemoved'";

/// More than any line of an authentication, in bytes.
const LONGEST_LINE: usize = 4096;

/// Where to ask for systemd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) path: PathBuf,
    pub(crate) peer: Peer,
}

/// Who answers there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// systemd itself.
    Systemd,
    /// A message bus, which systemd is on.
    Bus,
}

/// A job that has ended, and how: `done`, `failed`, `timeout`, …
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ended {
    job: String,
    result: String,
}

/// A connection to systemd.
#[derive(Debug)]
pub(crate) struct Bus {
    stream: UnixStream,
    /// What was read and not understood yet.
    unread: Vec<u8>,
    serial: u32,
    destination: Option<&'static str>,
    ended: Vec<Ended>,
}

/// An error of a call: an answer, or a connection that broke.
#[derive(Debug)]
pub(crate) enum Failed {
    Refused(Refusal),
    Broken(Error),
}

impl Failed {
    /// Whether systemd has answered with that error of its own, by the end of its name.
    pub(crate) fn is(&self, name: &str) -> bool {
        match self {
            Self::Refused(refusal) => {
                refusal.name.strip_prefix(SYSTEMD).and_then(|own| own.strip_prefix('.'))
                    == Some(name)
            }
            Self::Broken(_) => false,
        }
    }
}

impl From<Error> for Failed {
    fn from(err: Error) -> Self {
        Self::Broken(err)
    }
}

impl From<Failed> for Error {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Refused(refusal) => refusal.into(),
            Failed::Broken(err) => err,
        }
    }
}

impl Bus {
    /// Connects to the first of some addresses that answers.
    ///
    /// # Errors
    /// `Unavailable`, and why for each address.
    pub(crate) async fn connect(addresses: &[Address]) -> Result<Self> {
        let mut tried = String::new();
        for address in addresses {
            match Self::connect_to(address).await {
                Ok(bus) => return Ok(bus),
                Err(err) => {
                    let separator = if tried.is_empty() { "" } else { "; " };
                    let path = address.path.display();
                    write!(tried, "{separator}{path}: {err:#}").expect("a String takes everything");
                }
            }
        }
        Err(Error::new(Kind::Unavailable, format!("connect to systemd: {tried}")))
    }

    async fn connect_to(address: &Address) -> Result<Self> {
        let stream = UnixStream::connect(&address.path).await?;
        // Processes are named by number: it would take others into the unit, and end them with it.
        if stream.peer_cred()?.pid() == Some(0) {
            let why = "it is in another pid namespace, where our processes have other numbers";
            return Err(Error::new(Kind::Unavailable, why));
        }
        let mut bus =
            Self { stream, unread: Vec::new(), serial: 0, destination: None, ended: Vec::new() };
        bus.authenticate().await.context("authenticate")?;
        if address.peer == Peer::Bus {
            bus.destination = Some(SYSTEMD);
            bus.join().await.map_err(Error::from)?;
        }
        Ok(bus)
    }

    /// Who we are the kernel tells: `EXTERNAL` without a name is right in a user namespace, too.
    async fn authenticate(&mut self) -> Result<()> {
        self.send(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n").await?;
        for expected in ["DATA", "OK "] {
            let line = self.line().await?;
            if !line.starts_with(expected) {
                return Err(Error::new(Kind::PermissionDenied, format!("answered {line:?}")));
            }
        }
        Ok(())
    }

    /// Takes part in a bus, and asks for the signals that matter here.
    async fn join(&mut self) -> Result<(), Failed> {
        for (member, body) in [("Hello", vec![]), ("AddMatch", vec![Value::Text(JOBS.to_owned())])]
        {
            self.ask(Call {
                destination: Some(BUS),
                path: BUS_OBJECT,
                interface: BUS,
                member,
                body,
            })
            .await?;
        }
        self.call("Subscribe", vec![]).await.map(drop)
    }

    /// Calls a method of systemd's, and waits for its answer.
    ///
    /// # Errors
    /// [`Failed`].
    pub(crate) async fn call(
        &mut self,
        member: &str,
        body: Vec<Value>,
    ) -> Result<Vec<Value>, Failed> {
        let destination = self.destination;
        self.ask(Call { destination, path: OBJECT, interface: MANAGER, member, body }).await
    }

    /// Reads a property of systemd's own.
    ///
    /// # Errors
    /// [`Failed`].
    pub(crate) async fn property(&mut self, name: &str) -> Result<Value, Failed> {
        let body = vec![Value::Text(MANAGER.to_owned()), Value::Text(name.to_owned())];
        let interface = "org.freedesktop.DBus.Properties";
        let destination = self.destination;
        let call = Call { destination, path: OBJECT, interface, member: "Get", body };
        let answer = self.ask(call).await?;
        answer.into_iter().next().ok_or_else(|| garbled("a property has no value").into())
    }

    /// Calls a method that begins a job, waits for the end of that, and tells its result.
    ///
    /// # Errors
    /// [`Failed`].
    pub(crate) async fn job(&mut self, member: &str, body: Vec<Value>) -> Result<String, Failed> {
        let answer = self.call(member, body).await?;
        let job = answer.first().and_then(Value::as_text);
        let job = job.ok_or_else(|| garbled("there is no job in it"))?;
        loop {
            // It may have been told before the answer.
            if let Some(ended) = self.ended.iter().find(|ended| ended.job == job) {
                return Ok(ended.result.clone());
            }
            let heard = self.hear().await?;
            self.note(&heard);
        }
    }

    async fn ask(&mut self, call: Call<'_>) -> Result<Vec<Value>, Failed> {
        self.serial += 1;
        let ours = self.serial;
        self.send(&call.bytes(ours)).await?;
        loop {
            match self.hear().await? {
                Heard::Answer { serial, result } if serial == ours => {
                    return result.map_err(Failed::Refused);
                }
                heard => self.note(&heard),
            }
        }
    }

    /// Keeps what may matter later.
    fn note(&mut self, heard: &Heard) {
        let Heard::Signal { member, body } = heard else { return };
        // JobRemoved(u id, o job, s unit, s result)
        if let ("JobRemoved", [_, job, _, result]) = (member.as_str(), &body[..])
            && let (Some(job), Some(result)) = (job.as_text(), result.as_text())
        {
            self.ended.push(Ended { job: job.to_owned(), result: result.to_owned() });
        }
    }

    async fn hear(&mut self) -> Result<Heard> {
        self.fill(HEAD).await?;
        let head = self.unread.first_chunk().ok_or_else(|| garbled("it has no head"))?;
        let length = length_of(head)?;
        self.fill(length).await?;
        let message: Vec<u8> = self.unread.drain(..length).collect();
        message::read(&message)
    }

    /// Reads a line of the beginning, which is text.
    async fn line(&mut self) -> Result<String> {
        loop {
            if let Some(end) = self.unread.windows(2).position(|two| two == b"\r\n") {
                let line = String::from_utf8_lossy(&self.unread[..end]).into_owned();
                self.unread.drain(..end + 2);
                return Ok(line);
            }
            if self.unread.len() > LONGEST_LINE {
                return Err(garbled("a line is too long"));
            }
            self.fill(self.unread.len() + 1).await?;
        }
    }

    /// Reads until there are so many bytes.
    async fn fill(&mut self, count: usize) -> Result<()> {
        while self.unread.len() < count {
            self.stream.readable().await?;
            // Here, so that no future has room for it.
            let mut chunk = [0; 4096];
            match self.stream.try_read(&mut chunk) {
                Ok(0) => {
                    let why = "systemd has closed the connection";
                    return Err(Error::new(Kind::Unavailable, why));
                }
                Ok(count) => self.unread.extend(&chunk[..count]),
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => {}
                Err(err) => return Err(err.into()),
            }
        }
        Ok(())
    }

    async fn send(&self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            self.stream.writable().await?;
            match self.stream.try_write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => {}
                Err(err) => return Err(err.into()),
            }
        }
        Ok(())
    }
}
