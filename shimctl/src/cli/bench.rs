//! `shimctl bench`: times shims against each other.

use std::fs;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use shim_client::{EventServer, Rootfs, ShimBinary, runtime_options};

use super::Global;
use super::print;
use crate::bench::{Plan, Subject, to_json, to_table};

/// Time shims against each other, in one run and in turn
///
/// Each round takes every shim through one container's life. The table has medians, and their
/// ratio to the first shim's.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  shimctl bench --shim native=io.containerd.native.v2
  shimctl bench --shim ours=./a --shim go=./containerd-shim-runc-v2,BinaryName=/usr/bin/crun")]
pub(super) struct Arguments {
    /// A shim: a name for the report, its path or runtime name, and its runtime options
    #[arg(long = "shim", required = true, value_name = "NAME=SHIM[,OPTION=VALUE]")]
    shims: Vec<Named>,
    /// The root filesystem: host, a directory or an image; it needs `sleep` and `true`
    #[arg(long, default_value = "host")]
    rootfs: String,
    /// Lives that count, for each shim
    #[arg(long, default_value_t = 50)]
    rounds: usize,
    /// Lives before these
    #[arg(long, default_value_t = 3)]
    warm_up: usize,
    /// Write medians and 95th percentiles to a file, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Clone, Debug)]
struct Named {
    name: String,
    shim: String,
    options: Vec<(String, String)>,
}

impl FromStr for Named {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut parts = text.split(',');
        let first = parts.next().and_then(|first| first.split_once('='));
        let Some((name, shim)) = first else { bail!("{text:?}: expected NAME=SHIM") };
        let options = parts.map(|part| {
            let (key, value) = part.split_once('=').context("expected OPTION=VALUE")?;
            Ok((key.to_owned(), value.to_owned()))
        });
        let options = options.collect::<Result<_>>().with_context(|| text.to_owned())?;
        Ok(Self { name: name.to_owned(), shim: shim.to_owned(), options })
    }
}

impl Named {
    fn subject(&self) -> Result<Subject> {
        let binary = ShimBinary::resolve(&self.shim)?;
        let options = runtime_options(&binary, &self.options)?;
        Ok(Subject { name: self.name.clone(), binary, options })
    }
}

pub(super) async fn bench(global: &Global, arguments: &Arguments) -> Result<u8> {
    let store = global.store()?;
    let subjects: Vec<Subject> =
        arguments.shims.iter().map(Named::subject).collect::<Result<_>>()?;
    let id = format!("bench-{}", std::process::id());
    let folder = store.folder(&id);
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let events = EventServer::bind(&folder.join("events")).await?;
    let daemon = global.daemon(&store, &id, global.generation, folder.join("events"))?;
    let plan = Plan {
        daemon,
        rootfs: Rootfs::open(&arguments.rootfs, &global.cache, &|_, _, _| {})?,
        folder: folder.clone(),
        rounds: arguments.rounds,
        warm_up: arguments.warm_up,
    };
    let measured = Box::pin(plan.measure(&subjects)).await;
    drop(events);
    fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
    let measured = measured?;
    if let Some(path) = &arguments.json {
        fs::write(path, format!("{:#}\n", to_json(&measured)))
            .with_context(|| format!("write {}", path.display()))?;
    }
    print::line(to_table(&measured).trim_end())?;
    Ok(0)
}
