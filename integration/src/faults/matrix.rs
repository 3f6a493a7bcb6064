//! The matrix: every fault at every step.

use std::fmt;

/// A part of a container's life, during which something breaks.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Step {
    /// `start`, until the shim answers on its socket.
    Bootstrap,
    /// The Create call.
    Create,
    /// The Start call.
    Start,
    /// The container runs and is looked at: State, Pids, Stats.
    Running,
    /// An exec from Exec to Delete.
    Exec,
    /// Kill, Wait and Delete.
    Delete,
}

impl Step {
    /// All of them, in the order of a life.
    pub const ALL: [Self; 6] =
        [Self::Bootstrap, Self::Create, Self::Start, Self::Running, Self::Exec, Self::Delete];

    /// Its name in reports and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bootstrap => "bootstrap",
            Self::Create => "create",
            Self::Start => "start",
            Self::Running => "running",
            Self::Exec => "exec",
            Self::Delete => "delete",
        }
    }
}

/// Who is hit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Victim {
    /// The serving process; during bootstrap also the one that `start` is.
    Shim,
    /// The small process that makes the others.
    Stem,
    /// The container's first process.
    Container,
    /// containerd: the events service and the connection.
    Daemon,
    /// The reader of the shim's log.
    Logger,
    /// The reader of the container's output.
    Reader,
}

/// What hits it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Blow {
    /// It is gone at once.
    Kill,
    /// It stands still; later it goes on, or is killed.
    Stop,
}

/// What runs out, or does not do as usual, for the shim and its stem.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Want {
    /// Room in the file system of the bundle.
    Disk,
    /// File descriptors.
    Descriptors,
    /// Memory, in a cgroup.
    Memory,
    /// Processes, in a cgroup.
    Pids,
    /// Quiet: signals come all the time, and interrupt system calls.
    Quiet,
    /// Time: hardly any CPU, and every now and then none.
    Time,
}

/// A row of the matrix.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// A process is hit.
    Blow(Victim, Blow),
    /// Something runs out.
    Want(Want),
}

impl Fault {
    /// All of them, in the order of the report.
    #[must_use]
    pub fn all() -> Vec<Self> {
        use Victim::{Container, Daemon, Logger, Reader, Shim, Stem};
        let victims = [Shim, Stem, Container, Daemon, Logger, Reader];
        let blows = victims
            .into_iter()
            .flat_map(|victim| [Blow::Kill, Blow::Stop].map(|blow| Self::Blow(victim, blow)));
        use Want::{Descriptors, Disk, Memory, Pids, Quiet, Time};
        let wants = [Disk, Descriptors, Memory, Pids, Quiet, Time];
        blows.chain(wants.map(Self::Want)).collect()
    }

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Blow(victim, Blow::Kill) => format!("{}-kill", victim.name()),
            Self::Blow(victim, Blow::Stop) => format!("{}-stop", victim.name()),
            Self::Want(want) => format!("no-{}", want.name()),
        }
    }

    /// Whether all has to go as if nothing had happened, once a stopped victim goes on.
    #[must_use]
    pub fn is_harmless(self) -> bool {
        match self {
            Self::Blow(Victim::Logger | Victim::Reader, _) | Self::Blow(_, Blow::Stop) => true,
            Self::Blow(..) => false,
            Self::Want(want) => matches!(want, Want::Quiet | Want::Time),
        }
    }

    /// Why there is no such cell, where there is none.
    #[must_use]
    pub fn impossible(self, step: Step) -> Option<&'static str> {
        match (self, step) {
            (Self::Blow(Victim::Container, _), Step::Bootstrap) => Some("no container yet"),
            (Self::Blow(Victim::Reader, _), Step::Bootstrap) => Some("no output yet"),
            _ => None,
        }
    }
}

impl Victim {
    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Shim => "shim",
            Self::Stem => "stem",
            Self::Container => "container",
            Self::Daemon => "containerd",
            Self::Logger => "logger",
            Self::Reader => "reader",
        }
    }
}

impl Want {
    /// Its name on the command line, behind `no-`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Descriptors => "descriptors",
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Quiet => "quiet",
            Self::Time => "time",
        }
    }
}

/// One fault at one step.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Cell {
    /// What breaks.
    pub fault: Fault,
    /// When.
    pub step: Step,
}

impl Cell {
    /// All that are possible, row by row.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let cells = Fault::all()
            .into_iter()
            .flat_map(|fault| Step::ALL.into_iter().map(move |step| Self { fault, step }));
        cells.filter(|cell| cell.fault.impossible(cell.step).is_none()).collect()
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}::{}", self.fault.name(), self.step.name())
    }
}
