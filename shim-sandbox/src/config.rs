//! What an administrator can choose: a few keys of TOML.
//!
//! | source | when |
//! |---|---|
//! | the options of the runtime in containerd's configuration | a piece of TOML, or `ConfigPath` with a file |
//! | the file that `SHIM_SANDBOX_CONFIG` names | there is no such option |
//! | `/etc/shim-sandbox/config.toml` | nothing else is said, and it is there |
//!
//! containerd before 2.3.1 fails to start containers whose runtime has options: there the file is the way.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use shim_core::{Context, Error, Kind, Result, model::RuntimeOptions};
use shim_protos::{protobuf::Message, runtimeoptions};

/// Where the administrator's choices are, if nothing else is said.
const FILE: &str = "/etc/shim-sandbox/config.toml";

/// Names another file.
const VARIABLE: &str = "SHIM_SANDBOX_CONFIG";

const GENERIC: &str = "runtimeoptions.v1.Options";

/// The least memory in MiB with which a guest can start its first container.
const LEAST_MEMORY: u32 = 128;

/// All choices.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What runs a pod.
    pub backend: Backend,
    /// The folder with the guest's kernel and first files.
    pub image: PathBuf,
    /// The user whose the machine is.
    pub user: String,
    /// How long a guest may take until it greets, in seconds.
    pub boot_seconds: u32,
    /// The guest's size.
    pub guest: Guest,
    /// The program that is the machine.
    pub qemu: Qemu,
    /// The program that serves root filesystems and volumes.
    pub virtiofsd: Program,
    /// The program of gVisor.
    pub runsc: Runsc,
}

/// What runs a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// A virtual machine.
    #[default]
    Qemu,
    /// gVisor's kernel in a process.
    Gvisor,
    /// No machine: the guest's half as a process of this host. It isolates less than a container, and is
    /// there for tests of all else.
    #[serde(rename = "unsafe-process")]
    Process,
}

/// The guest's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Guest {
    /// Memory in MiB of a pod that says nothing of its size.
    pub memory: u32,
    /// Memory in MiB that the guest's kernel takes beyond what a pod asks for.
    pub overhead: u32,
    /// Processors of a pod that says nothing.
    pub processors: u32,
    /// The most processors.
    pub most_processors: u32,
}

/// The program that is the machine.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Qemu {
    /// By its name in `PATH`, or its path.
    pub path: PathBuf,
    /// Arguments before ours.
    pub arguments: Vec<String>,
    /// Files and folders that it needs beside the system's libraries; it sees no others.
    pub sees: Vec<PathBuf>,
    /// What executes the guest's code.
    pub accel: Accel,
    /// More of the kernel's command line.
    pub append: String,
}

/// What executes the guest's code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accel {
    /// The processor, if a guest was seen to run on it, else QEMU.
    #[default]
    Auto,
    /// The processor.
    Kvm,
    /// QEMU.
    Tcg,
}

/// A program and arguments before ours.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Program {
    /// By its name in `PATH`, or its path.
    pub path: PathBuf,
    /// Arguments before ours.
    pub arguments: Vec<String>,
    /// Files and folders that it needs beside the system's libraries.
    pub sees: Vec<PathBuf>,
}

/// The program of gVisor.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Runsc {
    /// By its name in `PATH`, or its path.
    pub path: PathBuf,
    /// Flags for every call, by their names without dashes.
    pub flags: std::collections::BTreeMap<String, String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            backend: Backend::default(),
            image: "/var/lib/shim-sandbox/image".into(),
            user: "nobody".to_owned(),
            boot_seconds: 60,
            guest: Guest::default(),
            qemu: Qemu::default(),
            virtiofsd: Program::default(),
            runsc: Runsc::default(),
        }
    }
}

impl Default for Guest {
    fn default() -> Self {
        Self { memory: 256, overhead: 96, processors: 1, most_processors: 8 }
    }
}

impl Default for Qemu {
    fn default() -> Self {
        Self {
            path: "qemu-system-x86_64".into(),
            arguments: Vec::new(),
            sees: Vec::new(),
            accel: Accel::default(),
            append: String::new(),
        }
    }
}

impl Default for Program {
    fn default() -> Self {
        Self { path: "virtiofsd".into(), arguments: Vec::new(), sees: Vec::new() }
    }
}

impl Default for Runsc {
    fn default() -> Self {
        Self { path: "runsc".into(), flags: std::collections::BTreeMap::default() }
    }
}

impl Config {
    /// Reads what counts, by the options that the shim was started with.
    ///
    /// # Errors
    /// `InvalidArgument` with the key that is unknown or makes no sense, and where it is.
    pub fn find(options: &[RuntimeOptions]) -> Result<Self> {
        for options in options {
            if let Some(found) = of_options(options)? {
                return Ok(found);
            }
        }
        if let Some(path) = env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
            return of_file(Path::new(&path));
        }
        match fs::metadata(FILE) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            _ => of_file(Path::new(FILE)),
        }
    }

    /// How long a guest may take until it greets.
    pub fn boot_limit(&self) -> Duration {
        Duration::from_secs(self.boot_seconds.into())
    }

    fn parse(text: &str) -> Result<Self> {
        let config: Self = toml::from_str(text).map_err(|err| Error::invalid(err.to_string()))?;
        let Guest { memory, processors, most_processors, .. } = config.guest;
        if memory < LEAST_MEMORY {
            let why = format!("guest.memory: {memory} MiB are too few, it takes {LEAST_MEMORY}");
            return Err(Error::invalid(why));
        }
        if processors == 0 || processors > most_processors {
            let why = format!("guest.processors: {processors} is not 1 to {most_processors}");
            return Err(Error::invalid(why));
        }
        if config.boot_seconds == 0 {
            return Err(Error::invalid("boot_seconds: no guest greets in 0 seconds"));
        }
        Ok(config)
    }
}

fn of_file(path: &Path) -> Result<Config> {
    let context = || format!("the configuration {}", path.display());
    let text = fs::read_to_string(path).with_context(context);
    let text = text.map_err(|err| err.with_kind(Kind::InvalidArgument))?;
    Config::parse(&text).with_context(context)
}

/// Options of another kind are no choice: up to 2.3.0 containerd sends runc's, empty.
fn of_options(options: &RuntimeOptions) -> Result<Option<Config>> {
    if options.type_url.rsplit('/').next() != Some(GENERIC) {
        return Ok(None);
    }
    let message = runtimeoptions::Options::parse_from_bytes(&options.value)
        .map_err(|err| Error::invalid(format!("parse {GENERIC}: {err}")))?;
    if message.config_body.is_empty() {
        let path = Some(message.config_path).filter(|path| !path.is_empty());
        return path.map(|path| of_file(Path::new(&path))).transpose();
    }
    let text = std::str::from_utf8(&message.config_body)
        .map_err(|_| Error::invalid("the runtime's options are not UTF-8"))?;
    Config::parse(text).context("the runtime's options").map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(body: &str, path: &str) -> RuntimeOptions {
        let message = runtimeoptions::Options {
            config_body: body.as_bytes().to_vec(),
            config_path: path.to_owned(),
            ..Default::default()
        };
        let value = message.write_to_bytes().unwrap();
        RuntimeOptions { type_url: GENERIC.to_owned(), value }
    }

    #[test]
    fn options_count_first_and_those_of_runc_not_at_all() {
        let runc = RuntimeOptions { type_url: "containerd.runc.v1.Options".into(), value: vec![] };
        let found = Config::find(&[runc.clone(), generic("[guest]\nmemory = 512", "")]).unwrap();
        assert_eq!(found.guest, Guest { memory: 512, ..Guest::default() });
        assert_eq!(Config::find(&[runc]).unwrap(), Config::default());
    }

    #[test]
    fn a_file_can_be_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        fs::write(&path, "backend = \"gvisor\"").unwrap();
        let path = path.to_str().unwrap();
        assert_eq!(Config::find(&[generic("", path)]).unwrap().backend, Backend::Gvisor);
        let err = Config::find(&[generic("", "/there/is/none")]).unwrap_err();
        assert_eq!(err.kind(), Kind::InvalidArgument);
        assert!(format!("{err:#}").contains("/there/is/none"), "{err:#}");
    }

    #[test]
    fn what_makes_no_sense_is_told_by_its_key() {
        for (text, key) in [
            ("[guest]\nmemory = 64", "guest.memory"),
            ("[guest]\nprocessors = 0", "guest.processors"),
            ("boot_seconds = 0", "boot_seconds"),
            ("sandboxed = false", "sandboxed"),
            ("[qemu]\naccel = \"hvf\"", "hvf"),
        ] {
            let err = Config::find(&[generic(text, "")]).unwrap_err();
            assert!(format!("{err:#}").contains(key), "{err:#}");
        }
    }
}
