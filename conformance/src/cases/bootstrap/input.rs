//! What comes on stdin of `start`.

use std::fmt::Write;

use anyhow::{Context, Result, ensure};
use shim_client::{Answer, Bundle, Generation, Output, Shim};
use shim_protos::Any;
use shim_protos::bootstrap::{BootstrapParams, Extension};
use shim_protos::protobuf::{EnumOrUnknown, Message, MessageField};
use shim_protos::{runc, runtimeoptions};

use super::address::by_rule;
use crate::case::group;
use crate::lab::Lab;

group! { "bootstrap":
    Must no_input: "`start` MUST work with /dev/null for stdin: there need not be options.", until(Generation::V2_2);
    Must empty_input: "`start` MUST work with an empty stdin.", until(Generation::V2_2);
    Must options_are_no_params: "Options of an older containerd MUST NOT be read as BootstrapParams.", until(Generation::V2_2);
    Should empty_runc_options: "`start` SHOULD take runc's options, be they empty.";
    Should toml_options: "`start` SHOULD take options as TOML, which CRI sends to runtimes that it does not know.";
    Must log_levels_unheard_of: "Log levels that the shim does not know MUST NOT stop it.", since(Generation::V2_3);
    Must fields_unheard_of: "Fields of BootstrapParams that the shim does not know MUST NOT stop it.", since(Generation::V2_3);
    Must several_extensions: "Extensions that the shim does not know MUST NOT stop it, nor keep it from its options.", since(Generation::V2_3);
    Should params_of_another: "Params of another id and namespace SHOULD be taken for options: they read the same.", since(Generation::V2_3);
    Should bare_flags_still_work: "Without BootstrapParams, as from an older containerd, `start` SHOULD still work.", since(Generation::V2_3);
    Must garbage_does_not_hang: "10 MiB of garbage on stdin MUST end in an answer, or in an error that says why.";
}

async fn start_with(lab: &Lab, input: Option<Vec<u8>>) -> Result<(Bundle, Output)> {
    let bundle = lab.bundle("c", Some(&lab.spec("c", &["true"]).build()))?;
    let started = lab.raw_start(&bundle, input).await?;
    Ok((bundle, started))
}

/// `start` has to succeed with that input, and its shim to serve.
async fn expect_shim(lab: &Lab, input: Option<Vec<u8>>) -> Result<Answer> {
    let (bundle, started) = start_with(lab, input).await?;
    ensure!(started.status.success(), "{}: {}", started.status, started.stderr_text());
    ensure!(started.stderr.is_empty(), "on stderr: {}", started.stderr_text());
    let answer = Answer::parse(lab.generation, &started.stdout)?;
    let (daemon, binary) = (lab.daemon(), &lab.subject.binary);
    let shim = Shim::connect(&daemon, binary, &bundle, answer.clone()).await?;
    let told = shim.task.connect(&shim_protos::task::ConnectRequest::default()).await?;
    ensure!(told.shim_pid > 0, "Connect says that the shim is process 0");
    Ok(answer)
}

async fn no_input(lab: &Lab) -> Result<()> {
    expect_shim(lab, None).await?;
    Ok(())
}

async fn empty_input(lab: &Lab) -> Result<()> {
    expect_shim(lab, Some(Vec::new())).await?;
    Ok(())
}

async fn options_are_no_params(lab: &Lab) -> Result<()> {
    // Type and value of an Any have the numbers that id and namespace have in BootstrapParams.
    let input = options(&runc_options()?)?;
    ensure!(
        BootstrapParams::parse_from_bytes(&input)
            .is_ok_and(|params| !params.instance_id.is_empty()),
        "these options do not read as BootstrapParams"
    );
    let answer = expect_shim(lab, Some(input)).await?;
    let address = answer.address;
    ensure!(address.starts_with("unix://") || !address.contains('/'), "address {address:?}");
    Ok(())
}

/// runc's options: the subject's own if it has some, so that its runtime is found.
fn runc_options() -> Result<Any> {
    let value = runc::Options::default().write_to_bytes()?;
    Ok(Any { type_url: "containerd.runc.v1.Options".to_owned(), value, ..Any::default() })
}

fn options(any: &Any) -> Result<Vec<u8>> {
    any.write_to_bytes().context("encode options")
}

/// Options in the form that this generation sends.
fn wrapped(lab: &Lab, any: &Any) -> Result<Vec<u8>> {
    if lab.generation < Generation::V2_3 {
        return options(any);
    }
    params(lab, |params| params.extensions = vec![extension(any)])
}

fn extension(any: &Any) -> Extension {
    Extension { value: MessageField::some(any.clone()), ..Extension::default() }
}

/// This generation's params for the container `c`, changed so.
fn params(lab: &Lab, change: impl FnOnce(&mut BootstrapParams)) -> Result<Vec<u8>> {
    let usual = lab.start_input("c")?.context("this generation sends params")?;
    let mut params = BootstrapParams::parse_from_bytes(&usual).context("our own params")?;
    change(&mut params);
    params.write_to_bytes().context("encode params")
}

async fn empty_runc_options(lab: &Lab) -> Result<()> {
    let input = wrapped(lab, &runc_options()?)?;
    expect_shim(lab, Some(input)).await?;
    Ok(())
}

async fn toml_options(lab: &Lab) -> Result<()> {
    let message = runtimeoptions::Options {
        config_body: b"SystemdCgroup = false\n".to_vec(),
        ..Default::default()
    };
    let any = Any {
        type_url: "runtimeoptions.v1.Options".to_owned(),
        value: message.write_to_bytes()?,
        ..Any::default()
    };
    expect_shim(lab, Some(wrapped(lab, &any)?)).await?;
    Ok(())
}

async fn log_levels_unheard_of(lab: &Lab) -> Result<()> {
    for level in [-3, 100] {
        let input = params(lab, |params| params.log_level = EnumOrUnknown::from_i32(level))?;
        let bundle = lab.bundle("c", Some(&lab.spec("c", &["true"]).build()))?;
        let started = lab.raw_start(&bundle, Some(input)).await?;
        ensure!(
            started.status.success(),
            "level {level}: {}: {}",
            started.status,
            started.stderr_text()
        );
        let answer = Answer::parse(lab.generation, &started.stdout)?;
        let (daemon, binary) = (lab.daemon(), &lab.subject.binary);
        lab.end_shim(Shim::connect(&daemon, binary, &bundle, answer).await?).await;
        bundle.remove()?;
    }
    Ok(())
}

async fn fields_unheard_of(lab: &Lab) -> Result<()> {
    let mut input = params(lab, |_| ())?;
    // Fields 100 and 101: a number and a text.
    input.extend([0xa0, 0x06, 0x2a]);
    input.extend([0xaa, 0x06, 0x03]);
    input.extend(b"new");
    expect_shim(lab, Some(input)).await?;
    Ok(())
}

async fn several_extensions(lab: &Lab) -> Result<()> {
    let unknown = Any {
        type_url: "example.org/Unheard.Of".to_owned(),
        value: b"\xff\xff\xff".to_vec(),
        ..Any::default()
    };
    let input = params(lab, |params| {
        params.extensions.insert(0, extension(&unknown));
        params.extensions.push(extension(&unknown));
        // One without a value at all.
        params.extensions.push(Extension::default());
    })?;
    expect_shim(lab, Some(input)).await?;
    Ok(())
}

async fn params_of_another(lab: &Lab) -> Result<()> {
    let input = params(lab, |params| {
        "somebody".clone_into(&mut params.instance_id);
        "elsewhere".clone_into(&mut params.namespace);
    })?;
    let (_, started) = start_with(lab, Some(input)).await?;
    if !started.status.success() {
        // Options of a type that nobody knows may well be refused.
        ensure!(!started.stderr.is_empty(), "{}, without a word", started.status);
        return Ok(());
    }
    let answer = Answer::parse(lab.generation, &started.stdout)?;
    let mut foreign = lab.daemon();
    "elsewhere".clone_into(&mut foreign.namespace);
    let of_another = by_rule(&foreign, "somebody");
    let told = answer.address;
    ensure!(!told.ends_with(&of_another.display().to_string()), "the shim is somebody else's");
    Ok(())
}

async fn bare_flags_still_work(lab: &Lab) -> Result<()> {
    let (_, started) = start_with(lab, None).await?;
    ensure!(started.status.success(), "{}: {}", started.status, started.stderr_text());
    Answer::parse(lab.generation, &started.stdout)?;
    Ok(())
}

async fn garbage_does_not_hang(lab: &Lab) -> Result<()> {
    // The same on every run: a linear congruence, with nothing to learn from it.
    let mut state = 1_u32;
    let garbage = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    });
    let garbage: Vec<u8> = garbage.take(10 << 20).collect();
    let (_, started) = start_with(lab, Some(garbage)).await?;
    if started.status.success() {
        Answer::parse(lab.generation, &started.stdout)?;
        return Ok(());
    }
    let mut said = String::from_utf8_lossy(&started.stdout).into_owned();
    write!(said, "{}", started.stderr_text())?;
    ensure!(!said.trim().is_empty(), "{}, without a word", started.status);
    ensure!(said.len() < 10_000, "an error of {} bytes", said.len());
    Ok(())
}
