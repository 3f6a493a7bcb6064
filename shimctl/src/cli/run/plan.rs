//! From the command line and the image's config to the spec.

use std::fs;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use shim_client::{Bundle, Rootfs, SpecBuilder, name_resolution, resolve_user};

use super::{Arguments, Network, Seccomp};

/// The spec: containerd's defaults, over them the image's words, over them the user's.
pub(super) fn spec(
    arguments: &Arguments,
    rootfs: &Rootfs,
    namespace: &str,
    id: &str,
) -> Result<Value> {
    let config = rootfs.config();
    let command = config.command(&arguments.args);
    if command.is_empty() {
        bail!(
            "nothing to execute: give a command after --, as in `run {} -- sh`",
            arguments.rootfs
        );
    }
    let mut spec = SpecBuilder::new(namespace, id)
        .args(&command)
        .hostname(arguments.hostname.as_deref().unwrap_or(id));
    if arguments.tty {
        spec = spec.terminal();
    }
    spec = spec.env(&config.env.unwrap_or_default()).env(&arguments.env);
    let cwd = arguments.cwd.as_ref().or(config.working_dir.as_ref());
    if let Some(cwd) = cwd.filter(|cwd| !cwd.is_empty()) {
        spec = spec.cwd(cwd);
    }
    let user = arguments.user.as_ref().or(config.user.as_ref());
    if let Some(user) = user.filter(|user| !user.is_empty()) {
        let (passwd, group) = (rootfs.read("/etc/passwd"), rootfs.read("/etc/group"));
        spec = spec.user(&resolve_user(user, &passwd, &group)?);
    }
    Ok(limits(confinement(spec, arguments)?, arguments, rootfs).build())
}

fn confinement(spec: SpecBuilder, arguments: &Arguments) -> Result<SpecBuilder> {
    if arguments.unconfined {
        return Ok(spec.unmasked());
    }
    Ok(match &arguments.seccomp {
        Seccomp::Default => spec.confined(),
        Seccomp::Unconfined => spec,
        Seccomp::File(path) => {
            let text = fs::read(path).with_context(|| format!("read {}", path.display()))?;
            let profile: Value = serde_json::from_slice(&text)
                .with_context(|| format!("parse {}", path.display()))?;
            spec.seccomp(profile)
        }
    })
}

fn limits(mut spec: SpecBuilder, arguments: &Arguments, rootfs: &Rootfs) -> SpecBuilder {
    if let Some(bytes) = arguments.memory {
        spec = spec.memory(bytes);
    }
    if let Some(quota) = arguments.cpus {
        spec = spec.cpu_quota(quota);
    }
    if let Some(count) = arguments.pids {
        spec = spec.pids(count);
    }
    if arguments.read_only {
        spec = spec.read_only();
    }
    if arguments.net == Network::Host {
        spec = spec.host_network();
        // The host's own root has these files already.
        if let Rootfs::Image(_) = rootfs {
            spec = name_resolution().iter().fold(spec, SpecBuilder::mount);
        }
    }
    spec = arguments.mount.iter().fold(spec, SpecBuilder::mount);
    for (key, value) in &arguments.annotation {
        spec = spec.annotation(key, value);
    }
    spec
}

/// The command that a bundle's spec has.
pub(super) fn command(bundle: &Bundle) -> Result<Vec<String>> {
    let spec = bundle.spec()?;
    serde_json::from_value(spec["process"]["args"].clone()).context("the spec's arguments")
}
