//! Requests with no sense in them.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use shim_client::{ExecChange, exec_process};
use shim_protos::protobuf::MessageField;
use shim_protos::types::Status;
use ttrpc::Code;

use crate::case::group;
use crate::expect;
use crate::lab::{Ask, Guest, Io, Lab, SLEEP, process_any};
use crate::wire::Wire;

group! { "input":
    Must garbage: "A request that cannot be decoded MUST be refused, whatever the method.";
    Must empty: "An empty request MUST be answered, whatever the method, and harm nobody.";
    Must unknown_method: "A method that the shim does not have MUST be UNIMPLEMENTED.";
    Must unknown_service: "A service that the shim does not have MUST be UNIMPLEMENTED.";
    Must unknown_fields: "Fields of a request that the shim does not know MUST be ignored.";
    Must broken_text: "Text that is no UTF-8 MUST be refused, and not end the shim.";
    Must sizes: "ResizePty to impossible sizes MUST be answered, and not end the shim.";
    Must bad_processes: "An exec whose spec makes no sense MUST be refused by Exec or Start.";
    Must missing_bundle: "Create in a bundle that does not exist MUST be refused.";
}

/// Every method of the task service.
const METHODS: [&str; 17] = [
    "State",
    "Create",
    "Start",
    "Delete",
    "Pids",
    "Pause",
    "Resume",
    "Checkpoint",
    "Kill",
    "Exec",
    "ResizePty",
    "CloseIO",
    "Update",
    "Wait",
    "Stats",
    "Connect",
    "Shutdown",
];

/// The container has to be as it was, and the shim at work.
async fn expect_unharmed(guest: &Guest) -> Result<()> {
    guest.expect_status("", Status::RUNNING).await.context("State afterwards")?;
    guest.started("after", &["true"]).await.context("an exec afterwards")?;
    guest.expect_exit("after", 0).await?;
    guest.delete("after").await?;
    Ok(())
}

async fn garbage(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    let mut wire = Wire::connect(&guest.shim.answer.address).await?;
    for (method, stream) in METHODS.iter().zip((1..).step_by(2)) {
        let payload = vec![0xff; 40];
        wire.call(stream, guest.service(), method, payload).await?;
        let (_, response) = wire.response().await.with_context(|| (*method).to_owned())?;
        let code = response.status().code();
        ensure!(code != Code::OK, "{method} succeeds with a request of garbage");
    }
    expect_unharmed(&guest).await
}

async fn empty(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    let mut wire = Wire::connect(&guest.shim.answer.address).await?;
    for (method, stream) in METHODS.iter().zip((1..).step_by(2)) {
        wire.call(stream, guest.service(), method, Vec::new()).await?;
        let (_, response) = wire.response().await.with_context(|| (*method).to_owned())?;
        let code = response.status().code();
        // Those two are about the shim as much as about a container.
        let may_succeed = ["Connect", "Shutdown"].contains(method);
        ensure!(may_succeed || code != Code::OK, "{method} succeeds for nobody");
    }
    expect_unharmed(&guest).await
}

async fn expect_unimplemented(guest: &Guest, service: &str, method: &str) -> Result<()> {
    let mut wire = Wire::connect(&guest.shim.answer.address).await?;
    wire.call(1, service, method, Vec::new()).await?;
    let (_, response) = wire.response().await?;
    let status = response.status();
    let code = status.code();
    ensure!(
        code == Code::UNIMPLEMENTED,
        "expected UNIMPLEMENTED, got {code:?}: {}",
        status.message
    );
    expect_unharmed(guest).await
}

async fn unknown_method(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    expect_unimplemented(&guest, guest.service(), "Teleport").await
}

async fn unknown_service(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    expect_unimplemented(&guest, "containerd.task.v99.Task", "State").await
}

/// State with these bytes in place of a request.
async fn raw_state(guest: &Guest, payload: Vec<u8>) -> Result<Code> {
    let mut wire = Wire::connect(&guest.shim.answer.address).await?;
    wire.call(1, guest.service(), "State", payload).await?;
    Ok(wire.response().await?.1.status().code())
}

/// Field 1, as bytes.
fn first_field(value: &[u8]) -> Vec<u8> {
    let length = u8::try_from(value.len()).unwrap_or(u8::MAX);
    [&[0x0a, length], value].concat()
}

async fn unknown_fields(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    // Field 1000 is a number, field 1001 bytes.
    let more = [0xc0, 0x3e, 0x05, 0xca, 0x3e, 0x02, b'h', b'i'];
    let payload = [first_field(guest.id.as_bytes()), more.to_vec()].concat();
    let code = raw_state(&guest, payload).await?;
    ensure!(code == Code::OK, "State with unknown fields is refused: {code:?}");
    Ok(())
}

async fn broken_text(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    let code = raw_state(&guest, first_field(b"\xff\xfe\x80")).await?;
    ensure!(code != Code::OK, "State succeeds for an id that is no text");
    expect_unharmed(&guest).await
}

async fn sizes(lab: &Lab) -> Result<()> {
    let guest = lab.run(Ask::new(&SLEEP).io(Io::Terminal)).await?;
    for (width, height) in [(0, 0), (u32::MAX, u32::MAX), (65_536, 65_536), (1 << 31, 1)] {
        if let Err(error) = guest.resize("", width, height).await {
            ensure!(error.code().is_some(), "{width} × {height}: {error}");
        }
    }
    guest.resize("", 80, 24).await.context("a usual size afterwards")?;
    expect_unharmed(&guest).await
}

async fn bad_processes(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    let bad: [(&str, Value); 5] = [
        ("args", json!("true")),
        ("cwd", json!("usr")),
        ("env", json!({ "PATH": "/bin" })),
        ("rlimits", json!([{ "type": "RLIMIT_PATIENCE", "soft": 1, "hard": 1 }])),
        ("user", json!({ "uid": -5 })),
    ];
    for (key, value) in bad {
        let args = vec!["true".to_owned()];
        let mut process = exec_process(&guest.spec, &ExecChange { args, ..Default::default() });
        process[key] = value.clone();
        let started = async {
            let spec = MessageField::some(process_any(&process));
            guest.exec_with(key, &[], |request| request.spec = spec).await?;
            guest.start(key).await
        };
        expect::refused(started.await).with_context(|| format!("{key}: {value}"))?;
    }
    expect_unharmed(&guest).await
}

async fn missing_bundle(lab: &Lab) -> Result<()> {
    for bundle in ["/no/such/bundle", ""] {
        let guest = lab.bare(&SLEEP).await?;
        let answer = guest.create_with(|request| {
            request.bundle = bundle.to_owned();
            request.rootfs.clear();
        });
        expect::refused(answer.await).with_context(|| format!("the bundle {bundle:?}"))?;
        expect::code(guest.state("").await, Code::NOT_FOUND)?;
    }
    Ok(())
}
