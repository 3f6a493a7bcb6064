//! `shimctl info`: what a shim says of itself.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use shim_client::{ShimBinary, execute, runtime_options};

use crate::values::parse_pair;

use super::print;

/// Show what a shim can do, as it says itself
///
/// Runs the shim's -info, which exists since containerd 2.0; older shims do not know it.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Runtime name or path of the shim
    #[arg(default_value = super::run::DEFAULT_SHIM)]
    shim: String,
    /// An option of the runtime, such as BinaryName=crun; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_pair)]
    runtime_option: Vec<(String, String)>,
}

pub(super) async fn info(arguments: &Arguments) -> Result<u8> {
    let binary = ShimBinary::resolve(&arguments.shim)?;
    let options = runtime_options(&binary, &arguments.runtime_option)?;
    let info = execute::info(&binary, options.as_ref(), Duration::from_secs(10)).await?;
    let version = info.version.unwrap_or_default();
    let features = match info.features.into_option() {
        Some(any) => serde_json::from_slice(&any.value).context("the features are not JSON")?,
        None => Value::Null,
    };
    let value = json!({
        "name": info.name,
        "path": binary.path(),
        "version": version.version,
        "revision": version.revision,
        "annotations": info.annotations,
        "features": features,
    });
    print::line(&serde_json::to_string_pretty(&value).context("encode")?)?;
    Ok(0)
}
