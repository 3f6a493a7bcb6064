//! containerd's configuration for pods.
//!
//! A runtime's pods are of one of two kinds. With the sandboxer `podsandbox` a pod is a container of
//! the pause image, to which the shim adds the others; with `shim` it is what the shim's own
//! Sandbox service makes. containerd 1.6 knows the first alone, and 1.7 has the second behind a
//! variable of its environment.

use std::env;
use std::fmt::Write;
use std::path::Path;

use crate::engine::Engine;
use crate::image;

/// The namespace of everything that CRI makes.
pub const NAMESPACE: &str = "k8s.io";

/// Who keeps a pod's sandbox.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sandboxer {
    /// containerd, by a container of the pause image.
    Podsandbox,
    /// The shim, by the Sandbox API.
    Shim,
}

impl Sandboxer {
    /// The one that `SHIM_SANDBOXER` names; `podsandbox` when nothing else is asked for, which every
    /// shim can serve.
    #[must_use]
    pub fn under_test() -> Self {
        let named = env::var_os("SHIM_SANDBOXER").is_some_and(|name| name == Self::Shim.name());
        if named { Self::Shim } else { Self::Podsandbox }
    }

    /// The name that containerd's configuration has for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Podsandbox => "podsandbox",
            Self::Shim => "shim",
        }
    }

    /// Why an engine cannot have it, if it cannot.
    #[must_use]
    pub fn lacks(self, engine: Engine) -> Option<&'static str> {
        let lacks = self == Self::Shim && engine == Engine::V16;
        lacks.then_some("this containerd has no Sandbox API")
    }

    /// What the daemon's environment needs for it; such a daemon is none of the others'.
    #[must_use]
    pub fn environment(self, engine: Engine) -> &'static [(&'static str, &'static str)] {
        match (self, engine) {
            (Self::Shim, Engine::V17) => &[("ENABLE_CRI_SANDBOXES", "1")],
            _ => &[],
        }
    }
}

/// A runtime by which pods are made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Runtime {
    /// What pods call it: the handler of a Kubernetes `RuntimeClass`.
    pub handler: &'static str,
    /// The name of its shim; none is the shim under test.
    pub shim: Option<&'static str>,
    /// Who keeps its sandboxes.
    pub sandboxer: Sandboxer,
}

/// The plugins that are there for pods, and left out otherwise.
const PLUGINS: &[&str] = &[
    "io.containerd.cri.v1.images",
    "io.containerd.cri.v1.runtime",
    "io.containerd.grpc.v1.cri",
    "io.containerd.podsandbox.controller.v1.podsandbox",
];

/// What the machine lacks or forbids is off: AppArmor, and lower `oom_score_adj` than our own.
const COMMON: &str = "disable_apparmor = true\nrestrict_oom_score_adj = true\n";

/// The streaming server's port is any that is free.
const STREAMING: &str = "stream_server_address = \"127.0.0.1\"\nstream_server_port = \"0\"\n";

/// The configuration of a daemon that makes pods, with everything below `dir`.
///
/// `under_test` is the shim of the runtimes that name none; `plugins` and `networks` are CNI's folders
/// of programs and of configuration.
#[must_use]
pub fn config(
    engine: Engine,
    dir: &Path,
    runtimes: &[Runtime],
    under_test: &str,
    [plugins, networks]: [&Path; 2],
) -> String {
    let (pods, images) = match engine {
        Engine::V16 | Engine::V17 => ("io.containerd.grpc.v1.cri", ""),
        Engine::V2 => ("io.containerd.cri.v1.runtime", "io.containerd.cri.v1.images"),
    };
    let mut text = engine.config_with(dir, PLUGINS);
    let (pause, snapshotter) = (image::PAUSE.name, "snapshotter = \"overlayfs\"");
    if images.is_empty() {
        text += &format!("[plugins.{pods:?}]\nsandbox_image = {pause:?}\n{COMMON}{STREAMING}");
        text += &format!("[plugins.{pods:?}.containerd]\n{snapshotter}\n");
    } else {
        text += &format!("[plugins.{images:?}]\n{snapshotter}\n");
        text += &format!("[plugins.{images:?}.pinned_images]\nsandbox = {pause:?}\n");
        text += &format!("[plugins.\"io.containerd.grpc.v1.cri\"]\n{STREAMING}");
        text += &format!("[plugins.{pods:?}]\n{COMMON}enable_cdi = false\n");
        text += &format!("[plugins.{pods:?}.containerd]\n");
    }
    let first = runtimes.first().map_or("none", |runtime| runtime.handler);
    text += &format!("default_runtime_name = {first:?}\n");
    for runtime in runtimes {
        text += &table(engine, pods, *runtime, under_test);
    }
    let (plugins, networks) = (plugins.display().to_string(), networks.display().to_string());
    let plugins = match engine {
        Engine::V16 | Engine::V17 => format!("bin_dir = {plugins:?}"),
        Engine::V2 => format!("bin_dirs = [{plugins:?}]"),
    };
    text + &format!("[plugins.{pods:?}.cni]\n{plugins}\nconf_dir = {networks:?}\n")
}

fn table(engine: Engine, pods: &str, runtime: Runtime, under_test: &str) -> String {
    let Runtime { handler, shim, sandboxer } = runtime;
    let shim = shim.unwrap_or(under_test);
    let mut table =
        format!("[plugins.{pods:?}.containerd.runtimes.{handler}]\nruntime_type = {shim:?}\n");
    let key = match engine {
        Engine::V16 => return table,
        Engine::V17 => "sandbox_mode",
        Engine::V2 => "sandboxer",
    };
    // Writing to a string cannot fail.
    let _ = writeln!(table, "{key} = {:?}", sandboxer.name());
    table
}
