//! Booting a guest: what it needs on the host, the machine, its agent, and what the guest is told to be.
//!
//! Of four things the first counts: the agent greets, the machine ends, time is up, somebody stops it. A
//! machine that ends early is told of at once, with the end of what its console said.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use shim_core::{
    Context, Error, Kind, Result,
    linux::Reaper,
    model::{ExitStatus, Pid, Signal},
};
use shim_protos::{cri::PodSandboxConfig, guest::SetupRequest};
use shim_runc::Cage;
use tokio::time;

use super::{
    agent::{Agent, Health},
    files,
    machine::{self, Body, Order, Started},
    pod::Wanted,
    share::Share,
    spec::Places,
};
use crate::{
    channel::Word,
    journal::Journal,
    net::{self, Network},
    vm,
};

/// How long a machine whose line has broken may take to end.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// What the guest is told to be, as far as it is known before there is one.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// The name of its host; empty keeps the guest's own.
    pub hostname: String,
    /// Parameters of its kernel.
    pub sysctls: HashMap<String, String>,
    /// The size of the pod's /dev/shm, in bytes.
    pub shm: u64,
    /// What its files are made of, where nobody on the host has made them.
    pub config: Option<PodSandboxConfig>,
}

/// What a guest is booted with and on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ground<'a> {
    pub(super) wanted: &'a Wanted,
    pub(super) reaper: &'a Reaper,
    pub(super) journal: &'a Journal,
    pub(super) share: &'a Share,
    pub(super) cage: &'a Cage,
}

/// A guest that runs.
#[derive(Debug)]
pub struct Machine {
    /// Its agent.
    pub agent: Agent,
    /// The release of its kernel, and the machine's name, uname(2).
    pub kernel: String,
    /// Where it has its things.
    pub places: Places,
    body: Body,
}

/// Boots a guest, and returns once it is what it is to be.
pub(super) async fn boot(ground: Ground<'_>) -> Result<Machine> {
    let wanted = ground.wanted;
    let limit = wanted.config.boot_limit();
    let network = match &wanted.netns {
        Some(netns) => net::hand_over(netns, ground.journal)?,
        None => Network::default(),
    };
    let Network { taps, interfaces, routes, neighbours } = network;
    let word = word()?;
    let started = machine::start(Order {
        config: &wanted.config,
        size: wanted.size,
        word: &word,
        folder: ground.journal.folder(),
        share: ground.share.served(),
        doors: ground.cage.doors(),
        cgroup: ground.cage.path(),
        taps,
        reaper: ground.reaper,
    });
    let Started { body, line, build, places, share_tag } = started.await?;
    let greeted = tokio::select! {
        greeted = Agent::greet(line, &word, build, Health::default()) => greeted,
        why = body.ended() => Err(Error::other(why)),
        () = time::sleep(limit) => {
            let why = format!("it has not greeted within {} s", limit.as_secs());
            Err(Error::new(Kind::TimedOut, why))
        }
    };
    let (agent, hello) = match greeted {
        Ok(greeted) => greeted,
        Err(err) => {
            // A line that breaks is mostly that of a machine that ends: its last words tell why.
            let _lives = time::timeout(LAST_WORDS, vm::end(&*body.vm)).await;
            return Err(err.context(vm::last_words(&*body.vm)));
        }
    };
    let files = match &wanted.setup.config {
        Some(config) => files::of_pod(config, &interfaces)?,
        None => HashMap::new(),
    };
    let request = SetupRequest {
        hostname: wanted.setup.hostname.clone(),
        files,
        sysctls: wanted.setup.sysctls.clone(),
        interfaces,
        routes,
        neighbours,
        share_tag,
        shm: wanted.setup.shm,
        time: now(),
        ..Default::default()
    };
    tokio::select! {
        set_up = agent.setup(request) => set_up?,
        why = body.ended() => return Err(Error::other(why)),
    }
    Ok(Machine { agent, kernel: hello.kernel, places, body })
}

impl Machine {
    /// The process that is the machine.
    pub fn pid(&self) -> Pid {
        self.body.vm.pid()
    }

    /// Waits until there is no use in it any more, and says why.
    pub async fn ended(&self) -> String {
        tokio::select! {
            why = self.body.ended() => why,
            why = self.agent.dead() => why,
        }
    }

    /// How it ended: one that was not asked to was killed, by us if by nobody else.
    pub fn status(&self) -> ExitStatus {
        self.body.vm.exited().borrow().map_or(ExitStatus::Signal(Signal::KILL), |exit| exit.status)
    }

    /// Asks the guest to end, and waits for that for a time.
    pub async fn power_off(&self, limit: Duration) {
        if let Err(err) = self.agent.power_off().await {
            log::debug!("{err:#}");
        }
        self.body.vm.power_off(limit).await;
    }
}

/// A word that nobody guesses.
fn word() -> Result<Word> {
    use std::io::Read;
    let mut bytes = [0; 16];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    read.context("read /dev/urandom")?;
    Word::parse(&bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

/// Nanoseconds since 1970.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
