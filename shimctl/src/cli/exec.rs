//! `shimctl exec`: adds a process to a running container.

use anyhow::{Context, Result};
use shim_client::{
    Container, ExecChange, Fifos, Rootfs, Shape, Store, Streams, exec_process, random_id,
    resolve_user,
};
use shim_protos::Any;
use shim_protos::protobuf::MessageField;
use shim_protos::task::ExecProcessRequest;

use super::run::{own_stdin, own_stdio, own_terminal};
use super::{Found, Global, exit_code};
use crate::session::{Session, Signals};

/// Run another process in a container
///
/// It gets the container's environment, user and limits, unless told otherwise. Its exit status
/// becomes shimctl's.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  shimctl exec web -- ps ax
  shimctl exec -t web -- sh
  shimctl exec --user 1000:1000 --cwd /tmp web -- touch file")]
pub(super) struct Arguments {
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// Leave it running and return
    #[arg(short, long, conflicts_with = "tty")]
    detach: bool,
    /// Set a variable; may be repeated
    #[arg(short, long, value_name = "KEY=VALUE")]
    env: Vec<String>,
    /// Working directory
    #[arg(long, value_name = "DIR")]
    cwd: Option<String>,
    /// User, or user:group, by name or number
    #[arg(short, long)]
    user: Option<String>,
    /// The container
    id: String,
    /// What to execute, after --
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

pub(super) async fn exec(global: &Global, arguments: &Arguments) -> Result<u8> {
    let store = global.store()?;
    let found = Found::find(global, &store, &arguments.id)?;
    let mut signals = Signals::catch()?;
    let container = found.connect_alive().await?;
    let exec_id = format!("exec-{}", random_id()?);
    let mut request = ExecProcessRequest {
        id: arguments.id.clone(),
        exec_id: exec_id.clone(),
        terminal: arguments.tty,
        spec: MessageField::some(process(&found, arguments)?),
        ..ExecProcessRequest::default()
    };
    if arguments.detach {
        container.task().exec(&request).await?;
        let (_, waiting) = container.start(&exec_id).await?;
        waiting.abort();
        return Ok(0);
    }

    let fifos = fifos(&store, arguments, &exec_id)?;
    request.stdin = fifos.stdin();
    request.stdout = fifos.stdout();
    request.stderr = fifos.stderr();
    let status = attend(&container, &mut signals, &fifos, request).await;
    fifos.remove()?;
    Ok(exit_code(status?))
}

fn fifos(store: &Store, arguments: &Arguments, exec_id: &str) -> Result<Fifos> {
    let shape = if arguments.tty { Shape::Terminal } else { Shape::Pipes };
    Fifos::create(&store.folder(&arguments.id).join("fifos").join(exec_id), shape)
}

/// The OCI process object as the request wants it.
fn process(found: &Found, arguments: &Arguments) -> Result<Any> {
    let rootfs = Rootfs::Directory(found.bundle.rootfs());
    let resolve =
        |user: &String| resolve_user(user, &rootfs.read("/etc/passwd"), &rootfs.read("/etc/group"));
    let change = ExecChange {
        args: arguments.args.clone(),
        terminal: arguments.tty,
        env: arguments.env.clone(),
        cwd: arguments.cwd.clone(),
        user: arguments.user.as_ref().map(resolve).transpose()?,
    };
    let process = exec_process(&found.bundle.spec()?, &change);
    Ok(Any {
        type_url: "types.containerd.io/opencontainers/runtime-spec/1/Process".to_owned(),
        value: serde_json::to_vec(&process).context("encode the process")?,
        ..Any::default()
    })
}

async fn attend(
    container: &Container,
    signals: &mut Signals,
    fifos: &Fifos,
    request: ExecProcessRequest,
) -> Result<u32> {
    let shape = if request.terminal { Shape::Terminal } else { Shape::Pipes };
    let mut streams = Streams::open(fifos, own_stdio()?)?;
    let input = own_stdin()?;
    container.task().exec(&request).await?;
    let exec_id = request.exec_id.as_str();
    let waiting = match container.start(exec_id).await {
        Ok((_, waiting)) => waiting,
        Err(error) => {
            if let Err(left) = container.delete_exec(exec_id).await {
                log::debug!("{left}");
            }
            return Err(error);
        }
    };
    let raw = own_terminal(shape);
    let session = Session { container, exec_id, shape };
    let ended = session.attend(signals, &mut streams, Some(input), waiting).await;
    if let Err(error) = container.delete_exec(exec_id).await {
        log::warn!("{error}");
    }
    streams.finish(container.shim().daemon().limits.drain).await;
    drop(raw);
    Ok(ended?.exit_status)
}
