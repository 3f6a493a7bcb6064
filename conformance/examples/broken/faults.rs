//! The faults: what each does to a request, an answer, an event, or an action of the binary.

use std::str::FromStr;

use anyhow::{Context, Result, bail};
use shim_protos::events::TaskExit;
use shim_protos::forward::ForwardRequest;
use shim_protos::protobuf::{EnumOrUnknown, Message};
use shim_protos::task::{
    CreateTaskRequest, ExecProcessRequest, StateRequest, StateResponse, StatsResponse, WaitRequest,
    WaitResponse,
};
use shim_protos::types::Status;
use ttrpc::proto::{Request, Response};

/// A way of being wrong; the group of cases that has to notice is said beside each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// None: the control.
    Nothing,
    /// `bootstrap`: `start` says more than its answer.
    Chatter,
    /// `info`: the same of `-info`.
    ChattyInfo,
    /// `cleanup`: `delete` does nothing and says that it did.
    LazyDelete,
    /// `task`: State says running, always.
    AlwaysRunning,
    /// `events`: an exit is told twice.
    ExitTwice,
    /// `events`: an exit is never told.
    ExitLost,
    /// `group`: Shutdown ends it, whatever containers it has.
    EarlyShutdown,
    /// `shutdown`: Shutdown does nothing.
    NoShutdown,
    /// `rootfs`: all mounts but the first are forgotten.
    OneMount,
    /// `recovery`: it goes with its first client.
    GoesWithClient,
    /// `exec`: every exec ends with status 0.
    ExecZero,
    /// `kill`: no signal but SIGKILL arrives.
    KillOnly,
    /// `wait`: Wait does not wait.
    NoWait,
    /// `stdio`: what is printed goes nowhere.
    OutputLost,
    /// `terminal`: the size is not set.
    NoResize,
    /// `stats`: counters of a type that nobody knows.
    OpaqueStats,
    /// `update`: limits stay as they are.
    NoUpdate,
    /// `pause`: nothing is frozen.
    NoPause,
    /// `oom`: nobody hears of it.
    OomLost,
    /// `checkpoint`: there is never an answer.
    CheckpointHangs,
    /// `input`: a payload that does not decode ends it.
    GarbageKills,
    /// `wire`: an odd frame ends it.
    OddFrameKills,
    /// `concurrency`: every Delete succeeds.
    EveryDelete,
}

impl FromStr for Fault {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "nothing" => Self::Nothing,
            "chatter" => Self::Chatter,
            "chatty-info" => Self::ChattyInfo,
            "lazy-delete" => Self::LazyDelete,
            "always-running" => Self::AlwaysRunning,
            "exit-twice" => Self::ExitTwice,
            "exit-lost" => Self::ExitLost,
            "early-shutdown" => Self::EarlyShutdown,
            "no-shutdown" => Self::NoShutdown,
            "one-mount" => Self::OneMount,
            "goes-with-client" => Self::GoesWithClient,
            "exec-zero" => Self::ExecZero,
            "kill-only" => Self::KillOnly,
            "no-wait" => Self::NoWait,
            "output-lost" => Self::OutputLost,
            "no-resize" => Self::NoResize,
            "opaque-stats" => Self::OpaqueStats,
            "no-update" => Self::NoUpdate,
            "no-pause" => Self::NoPause,
            "oom-lost" => Self::OomLost,
            "checkpoint-hangs" => Self::CheckpointHangs,
            "garbage-kills" => Self::GarbageKills,
            "odd-frame-kills" => Self::OddFrameKills,
            "every-delete" => Self::EveryDelete,
            _ => bail!("no fault {text:?}"),
        })
    }
}

/// What becomes of a request.
pub(crate) enum Verdict {
    /// It goes on to the sound shim.
    PassOn,
    /// It is answered with this payload.
    Answer(Vec<u8>),
    /// It is never answered.
    Swallow,
    /// The shim dies of it.
    Die,
}

impl Fault {
    /// What becomes of a request, which may be changed.
    pub(crate) fn of_request(self, request: &mut Request) -> Result<Verdict> {
        let empty = Ok(Verdict::Answer(Vec::new()));
        match (self, request.method.as_str()) {
            (Self::NoShutdown, "Shutdown")
            | (Self::NoResize, "ResizePty")
            | (Self::NoUpdate, "Update")
            | (Self::NoPause, "Pause" | "Resume") => empty,
            (Self::KillOnly, "Kill") => {
                let kill: shim_protos::task::KillRequest = decode(&request.payload)?;
                if kill.signal == 9 { Ok(Verdict::PassOn) } else { empty }
            }
            (Self::NoWait, "Wait") => {
                Ok(Verdict::Answer(encode(&WaitResponse { exit_status: 0, ..Default::default() })?))
            }
            (Self::EarlyShutdown, "Shutdown") => Ok(Verdict::Die),
            (Self::CheckpointHangs, "Checkpoint") => Ok(Verdict::Swallow),
            (Self::GarbageKills, _) => {
                let sound = decode::<StateRequest>(&request.payload).is_ok();
                Ok(if sound { Verdict::PassOn } else { Verdict::Die })
            }
            (Self::OneMount, "Create") => {
                change(request, |create: &mut CreateTaskRequest| create.rootfs.truncate(1))
            }
            (Self::OutputLost, "Create") => {
                change(request, |create: &mut CreateTaskRequest| create.stdout.clear())
            }
            (Self::OutputLost, "Exec") => {
                change(request, |exec: &mut ExecProcessRequest| exec.stdout.clear())
            }
            _ => Ok(Verdict::PassOn),
        }
    }

    /// Changes the answer to a request.
    pub(crate) fn of_response(self, request: &Request, response: &mut Response) -> Result<()> {
        match (self, request.method.as_str()) {
            (Self::EveryDelete, "Delete") => {
                response.status.clear();
            }
            (Self::AlwaysRunning, "State") => {
                let mut state: StateResponse = decode(&response.payload)?;
                state.status = EnumOrUnknown::new(Status::RUNNING);
                response.payload = encode(&state)?;
            }
            (Self::ExecZero, "Wait") => {
                let asked: WaitRequest = decode(&request.payload)?;
                if !asked.exec_id.is_empty() {
                    let mut ended: WaitResponse = decode(&response.payload)?;
                    ended.exit_status = 0;
                    response.payload = encode(&ended)?;
                }
            }
            (Self::OpaqueStats, "Stats") => {
                let mut told: StatsResponse = decode(&response.payload)?;
                told.stats.mut_or_insert_default().type_url = "opaque".to_owned();
                response.payload = encode(&told)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// How often an event is passed on.
    pub(crate) fn times(self, event: &ForwardRequest) -> usize {
        match (self, event.envelope.topic.as_str()) {
            (Self::ExitTwice, "/tasks/exit") => 2,
            (Self::ExitLost, "/tasks/exit") if is_of_init(event) => 0,
            (Self::OomLost, "/tasks/oom") => 0,
            _ => 1,
        }
    }
}

fn is_of_init(event: &ForwardRequest) -> bool {
    let exit = decode::<TaskExit>(&event.envelope.event.value);
    exit.is_ok_and(|exit| exit.id == exit.container_id)
}

fn change<M: Message>(request: &mut Request, change: impl FnOnce(&mut M)) -> Result<Verdict> {
    let mut message: M = decode(&request.payload)?;
    change(&mut message);
    request.payload = encode(&message)?;
    Ok(Verdict::PassOn)
}

pub(crate) fn decode<M: Message>(bytes: &[u8]) -> Result<M> {
    M::parse_from_bytes(bytes).context("decode")
}

pub(crate) fn encode(message: &impl Message) -> Result<Vec<u8>> {
    message.write_to_bytes().context("encode")
}
