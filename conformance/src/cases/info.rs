//! `-info` and `-v`: what the shim is, without any container or daemon.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use shim_client::{Generation, Output, execute};
use shim_protos::protobuf::Message;
use shim_protos::types::RuntimeInfo;
use shim_protos::{Any, runc};

use crate::case::group;
use crate::expect::skip;
use crate::lab::Lab;

group! { "info":
    Must answers_without_surroundings: "`-info` MUST work without flags, variables or input: containerd gives none.", since(Generation::V2_0);
    Must answers_without_stdin: "`-info` MUST work with /dev/null for stdin.", since(Generation::V2_0);
    Must takes_options: "`-info` MUST take runtime options on stdin, bare as they are.", since(Generation::V2_0);
    Must answer_is_one_message: "`-info` MUST print a RuntimeInfo and nothing else to stdout.", since(Generation::V2_0);
    Must names_the_runtime: "RuntimeInfo MUST have a name.", since(Generation::V2_0);
    Should names_the_version: "RuntimeInfo SHOULD have a version.", since(Generation::V2_0);
    Should features_are_json: "RuntimeInfo SHOULD have the runtime's features, as the OCI's JSON.", since(Generation::V2_0);
    Must mounts_are_named_exactly: "The mounts that a shim takes MUST be types with commas between: containerd trims nothing.", since(Generation::V2_2);
    Should is_fast: "`-info` SHOULD be done within a second: it precedes the first container.", since(Generation::V2_2);
    Should version_is_printed: "`-v` SHOULD print a version and succeed.";
}

const LIMIT: Duration = Duration::from_secs(10);

/// `-info` as containerd executes it, with this on stdin.
async fn info(lab: &Lab, input: Option<Vec<u8>>) -> Result<(RuntimeInfo, Output)> {
    let binary = &lab.subject.binary;
    // An OCI runtime has to be found by somebody; containerd's own environment has this, too.
    let path = std::env::var("PATH").unwrap_or_default();
    let variables = [("PATH", path.as_str())];
    let output = execute::bare(binary, &["-info"], &variables, input, LIMIT).await?;
    ensure!(output.status.success(), "{}: {}", output.status, output.stderr_text());
    ensure!(!output.stdout.is_empty(), "it succeeds, and prints nothing");
    let info = RuntimeInfo::parse_from_bytes(&output.stdout).context("decode RuntimeInfo")?;
    Ok((info, output))
}

/// The subject's own options, by which it finds its runtime.
fn own_options(lab: &Lab) -> Result<Vec<u8>> {
    let encoded = lab.subject.options.as_ref().map(|any| any.write_to_bytes()).transpose()?;
    Ok(encoded.unwrap_or_default())
}

async fn answers_without_surroundings(lab: &Lab) -> Result<()> {
    info(lab, Some(Vec::new())).await?;
    Ok(())
}

async fn answers_without_stdin(lab: &Lab) -> Result<()> {
    info(lab, None).await?;
    Ok(())
}

async fn takes_options(lab: &Lab) -> Result<()> {
    let mut options = own_options(lab)?;
    if options.is_empty() {
        let value = runc::Options::default().write_to_bytes()?;
        let type_url = "containerd.runc.v1.Options".to_owned();
        options = Any { type_url, value, ..Any::default() }.write_to_bytes()?;
    }
    let (info, _) = info(lab, Some(options)).await?;
    ensure!(!info.name.is_empty(), "with options, RuntimeInfo has no name");
    Ok(())
}

async fn answer_is_one_message(lab: &Lab) -> Result<()> {
    let (info, output) = info(lab, Some(own_options(lab)?)).await?;
    // Text that happens to decode would do so into fields that nobody knows.
    let unknown = info.special_fields.unknown_fields().iter().count();
    ensure!(unknown == 0, "RuntimeInfo has {unknown} fields that there are not");
    let again = info.write_to_bytes()?;
    ensure!(
        again.len() == output.stdout.len(),
        "{} bytes on stdout, of which RuntimeInfo is {}",
        output.stdout.len(),
        again.len()
    );
    Ok(())
}

async fn names_the_runtime(lab: &Lab) -> Result<()> {
    let (info, _) = info(lab, Some(own_options(lab)?)).await?;
    ensure!(!info.name.is_empty(), "RuntimeInfo has no name");
    ensure!(info.name.is_ascii(), "RuntimeInfo has the name {:?}", info.name);
    Ok(())
}

async fn names_the_version(lab: &Lab) -> Result<()> {
    let (info, _) = info(lab, Some(own_options(lab)?)).await?;
    let version = info.version.unwrap_or_default();
    ensure!(!version.version.is_empty(), "RuntimeInfo has no version");
    Ok(())
}

async fn features_are_json(lab: &Lab) -> Result<()> {
    /// How containerd names them.
    const TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";
    let (info, _) = info(lab, Some(own_options(lab)?)).await?;
    let features = info.features.into_option().context("RuntimeInfo has no features")?;
    ensure!(features.type_url == TYPE, "features of the type {:?}", features.type_url);
    let told: Value = serde_json::from_slice(&features.value).context("features are no JSON")?;
    for key in ["ociVersionMin", "ociVersionMax"] {
        ensure!(told[key].is_string(), "features have no {key}: {told}");
    }
    Ok(())
}

/// The mounts that the shim wants to make itself.
pub(super) async fn taken_mounts(lab: &Lab) -> Result<Vec<String>> {
    let (info, _) = info(lab, Some(own_options(lab)?)).await?;
    match info.annotations.get("containerd.io/runtime-allow-mounts") {
        Some(types) => Ok(types.split(',').map(str::to_owned).collect()),
        None => skip("the shim leaves all mounts to containerd"),
    }
}

async fn mounts_are_named_exactly(lab: &Lab) -> Result<()> {
    for each in taken_mounts(lab).await? {
        let plain = |c: char| c.is_ascii_alphanumeric() || "/*._-".contains(c);
        ensure!(!each.is_empty() && each.chars().all(plain), "no type of a mount: {each:?}");
    }
    Ok(())
}

async fn is_fast(lab: &Lab) -> Result<()> {
    let begun = Instant::now();
    info(lab, Some(own_options(lab)?)).await?;
    let took = begun.elapsed();
    ensure!(took < Duration::from_secs(1), "`-info` took {took:?}");
    Ok(())
}

async fn version_is_printed(lab: &Lab) -> Result<()> {
    let output = execute::bare(&lab.subject.binary, &["-v"], &[], None, LIMIT).await?;
    ensure!(output.status.success(), "{}: {}", output.status, output.stderr_text());
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), output.stderr_text());
    ensure!(said.contains(|c: char| c.is_ascii_alphanumeric()), "it prints {said:?}");
    Ok(())
}
