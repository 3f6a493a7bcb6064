//! The process in front of the sound shim: passes frames on in both directions, and events.

use std::collections::HashMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::{self, ExitCode};
use std::sync::{Arc, Mutex};
use std::{fs, io};

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use shim_protos::Empty;
use shim_protos::forward::{Events, EventsClient, ForwardRequest, create_events};
use shim_protos::protobuf::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use ttrpc::r#async::{Client, Server, TtrpcContext};
use ttrpc::asynchronous::transport::{Listener, Socket};
use ttrpc::context;
use ttrpc::proto::{Request, Response};

use crate::Setting;
use crate::faults::{Fault, Verdict, decode, encode};
use crate::frames::{Frame, REQUEST, RESPONSE};

/// Serves until the sound shim is gone.
pub(crate) fn serve(setting: Setting, arguments: &[String]) -> Result<ExitCode> {
    let [_, shim, own, events, own_events] = arguments else { bail!("serve takes four sockets") };
    let [shim, own, events, own_events] = [shim, own, events, own_events].map(PathBuf::from);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        for path in [&own, &own_events] {
            let _ = fs::remove_file(path);
        }
        let listener = UnixListener::bind(&own).context("listen")?;
        let publisher = Publisher { to: events, fault: setting.fault };
        let mut server = Server::new()
            .add_listener(Listener::from(UnixListener::bind(&own_events)?))
            .register_service(create_events(Arc::new(publisher)));
        server.start().await?;
        let mut life = UnixStream::connect(&shim).await.context("connect to the sound shim")?;
        announce()?;
        tokio::select! {
            // It never sends on a connection that asks nothing: this is its end.
            _ = life.read_u8() => {}
            ended = accept(&listener, &shim, setting.fault) => ended?,
        }
        let _ = server.shutdown().await;
        for path in [&own, &own_events] {
            let _ = fs::remove_file(path);
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Whoever started us waits for this, and for the end of the pipe.
fn announce() -> Result<()> {
    io::stdout().write_all(b"ready")?;
    io::stdout().flush()?;
    let null = fs::OpenOptions::new().write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(&null).context("give up stdout")
}

#[expect(clippy::exit, reason = "dying at once is the fault")]
async fn accept(listener: &UnixListener, shim: &PathBuf, fault: Fault) -> Result<()> {
    loop {
        let (client, _) = listener.accept().await?;
        let shim = UnixStream::connect(shim).await?;
        tokio::spawn(async move {
            let ended = pass_on(client, shim, fault).await;
            if ended.is_err() || fault == Fault::GoesWithClient {
                process::exit(1);
            }
        });
    }
}

/// Requests that have been passed on, by their stream.
type Pending = Arc<Mutex<HashMap<u32, Request>>>;

async fn pass_on(client: UnixStream, shim: UnixStream, fault: Fault) -> Result<()> {
    let (from_client, to_client) = client.into_split();
    let (from_shim, to_shim) = shim.into_split();
    let pending = Pending::default();
    let (answers, mut answered) = unbounded_channel::<Frame>();
    tokio::spawn(responses(from_shim, answers.clone(), Arc::clone(&pending), fault));
    tokio::spawn(async move {
        let mut to_client = to_client;
        while let Some(frame) = answered.recv().await {
            if to_client.write_all(&frame.bytes()).await.is_err() {
                return;
            }
        }
    });
    requests(from_client, to_shim, answers, pending, fault).await
}

async fn requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    answers: UnboundedSender<Frame>,
    pending: Pending,
    fault: Fault,
) -> Result<()> {
    while let Some(mut frame) = Frame::read(&mut from).await? {
        if fault == Fault::OddFrameKills && frame.is_odd() {
            bail!("an odd frame");
        }
        if let (REQUEST, Ok(mut request)) = (frame.kind(), decode::<Request>(&frame.data)) {
            match fault.of_request(&mut request)? {
                Verdict::PassOn => {}
                Verdict::Swallow => continue,
                Verdict::Die => bail!("a request it cannot bear"),
                Verdict::Answer(payload) => {
                    let response = Response { payload, ..Response::default() };
                    let frame = Frame::new(RESPONSE, frame.stream(), encode(&response)?);
                    let _ = answers.send(frame);
                    continue;
                }
            }
            frame.replace(encode(&request)?);
            pending.lock().expect("nobody panics").insert(frame.stream(), request);
        }
        if to.write_all(&frame.bytes()).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

async fn responses(
    mut from: OwnedReadHalf,
    answers: UnboundedSender<Frame>,
    pending: Pending,
    fault: Fault,
) -> Result<()> {
    while let Some(mut frame) = Frame::read(&mut from).await? {
        let request = pending.lock().expect("nobody panics").remove(&frame.stream());
        if let (Some(request), Ok(mut response)) =
            (request, Response::parse_from_bytes(&frame.data))
        {
            fault.of_response(&request, &mut response)?;
            frame.replace(encode(&response)?);
        }
        let _ = answers.send(frame);
    }
    Ok(())
}

/// Takes the sound shim's events, and passes them on.
struct Publisher {
    to: PathBuf,
    fault: Fault,
}

#[async_trait]
impl Events for Publisher {
    async fn forward(&self, asked: &TtrpcContext, event: ForwardRequest) -> ttrpc::Result<Empty> {
        for _ in 0..self.fault.times(&event) {
            let socket =
                Socket::connect_unix(self.to.display().to_string()).await.map_err(|error| {
                    ttrpc::Error::Others(format!("connect to {}: {error}", self.to.display()))
                })?;
            let mut context = context::with_timeout(5_000_000_000);
            context.metadata.clone_from(&asked.metadata);
            EventsClient::new(Client::new(socket)).forward(context, &event).await?;
        }
        Ok(Empty::new())
    }
}
