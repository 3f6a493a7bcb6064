//! The measuring programs, built and run.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{
    Sizes, floor,
    found::{self, Row, Scenario},
};
use crate::{build, peers::Peers, sh};

/// How long nothing happens in the scenarios that say so, in milliseconds.
const GAP: u64 = 100;

/// What a measurement sees of the machine, in a mount namespace of its own. crun takes no host with
/// controllers in the unified hierarchy beside version 1, so that is hidden from all. And `/run` is
/// in memory, as where containerd usually lives: a shim's small files cost milliseconds on a disk.
const STAGE: &str = "umount /sys/fs/cgroup/unified 2>/dev/null; \
                     mount -t tmpfs -o mode=755 run /run && exec \"$@\"";

/// Everything that a measurement needs.
pub(super) struct Tools {
    shimctl: PathBuf,
    through: PathBuf,
    floor: PathBuf,
    rootfs: PathBuf,
    /// `NAME=PATH[,BinaryName=PATH]`, ours first.
    shims: Vec<String>,
    /// A shim that makes no container.
    plain: String,
}

/// One run of one of the programs.
#[derive(Clone, Debug)]
pub(super) enum Measurement {
    /// A scenario of `shimctl bench`, with the floor before and after it where it has one.
    Shims { scenario: &'static str, title: &'static str, flags: Vec<String>, floor: Option<Floor> },
    /// Many idle containers of ours alone, with streams: the name of it, and whether they share a shim.
    Idle { name: &'static str, title: &'static str, containers: usize, grouped: bool },
    /// Lives under containerd.
    Through { title: &'static str, rounds: usize, gap: u64 },
}

/// How the floor is run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Floor {
    /// What the scenario is called.
    name: &'static str,
    rounds: usize,
    gap: u64,
}

impl Measurement {
    /// What it is about.
    pub(super) fn title(&self) -> &'static str {
        match self {
            Self::Shims { title, .. } | Self::Idle { title, .. } | Self::Through { title, .. } => {
                title
            }
        }
    }
}

impl Tools {
    /// Builds the programs, and the root filesystem of the containers.
    pub(super) fn build(peers: &Peers) -> Result<Self> {
        let release =
            |arguments: &[&str]| sh::run(sh::cargo().args(["build", "--release"]).args(arguments));
        build::shim()?;
        build::shimctl()?;
        let plain = "containerd-shim-plain-v1";
        release(&["--package", "shim-core", "--example", plain])?;
        release(&["--package", "integration", "--bin", "through"])?;
        let floor = floor::compile()?;
        let rootfs = rootfs(peers)?;
        let built = sh::target().join("release");
        let native = built.join("containerd-shim-native-v2");
        let mut shims = vec![format!("native={}", native.display())];
        for (shim, name) in [("engine2", "go"), ("rust", "rust")] {
            for program in ["runc", "crun"] {
                let (shim, binary) = (peers.path(shim)?.display(), peers.path(program)?.display());
                shims.push(format!("{name}+{program}={shim},BinaryName={binary}"));
            }
        }
        Ok(Self {
            shimctl: built.join("shimctl"),
            through: built.join("through"),
            floor,
            rootfs,
            shims,
            plain: format!("plain={}", built.join("examples").join(plain).display()),
        })
    }

    /// What there is to measure, in the order of the page.
    pub(super) fn measurements(&self, sizes: Sizes) -> Vec<Measurement> {
        let shims = |scenario, title, flags: &[(&str, String)], floor| {
            let flags = flags.iter().flat_map(|(flag, value)| [(*flag).to_owned(), value.clone()]);
            Measurement::Shims { scenario, title, flags: flags.collect(), floor }
        };
        let containers = sizes.alone;
        let alone = |name, title, grouped| Measurement::Idle { name, title, containers, grouped };
        let rounds = |rounds: usize| ("--rounds", rounds.to_string());
        let through = |title, gap| Measurement::Through { title, rounds: sizes.through, gap };
        let [many_rounds, many] = sizes.many;
        let (stdio_rounds, bytes) = sizes.stdio;
        let floor =
            |name, rounds: usize, gap| Some(Floor { name, rounds: rounds.div_ceil(2), gap });
        let life = [rounds(sizes.life)];
        let idle = [rounds(sizes.idle), ("--gap", GAP.to_string())];
        let slow_rounds = |rounds: usize| ("--slow-rounds", rounds.to_string());
        let many = [slow_rounds(many_rounds), ("--count", many.to_string())];
        let density = [("--containers", sizes.containers.to_string())];
        let stdio = [slow_rounds(stdio_rounds), ("--bytes", bytes.to_owned())];
        vec![
            shims("life", "A life, back to back", &life, floor("floor", sizes.life, 0)),
            shims("idle", "A life with pauses", &idle, floor("floor, idle", sizes.idle, GAP)),
            through("Through containerd, back to back", 0),
            through("Through containerd, with pauses", GAP),
            shims("many", "Many at once", &many, None),
            shims("density", "Idle containers", &density, None),
            alone("a shim each", "Idle containers with streams, a shim each", false),
            alone("a shim for all", "Idle containers with streams, a shim for all", true),
            shims("stdio", "Streams", &stdio, None),
        ]
    }

    /// Measures, and returns what was found: a scenario, and those that come with it.
    pub(super) fn measure(&self, measurement: &Measurement) -> Result<Vec<Scenario>> {
        match measurement {
            Measurement::Shims { scenario, title, flags, floor } => {
                let before = floor.map(|floor| self.run_floor(floor)).transpose()?;
                let mut found = vec![self.run_shims([scenario; 2], title, flags, &self.shims)?];
                if let (Some(floor), Some(before)) = (*floor, before) {
                    // A machine's speed drifts: half of the floor's rounds are on either side.
                    let after = self.run_floor(floor)?;
                    let rows = floor::rows(&[before, after])?;
                    found.push(floor_scenario(floor, rows));
                }
                Ok(found)
            }
            Measurement::Idle { name, title, containers, grouped } => {
                let mut flags = vec!["--containers".to_owned(), containers.to_string()];
                flags.push("--streams".to_owned());
                flags.extend(grouped.then(|| "--grouped".to_owned()));
                let ours = &self.shims[..1];
                Ok(vec![self.run_shims(["density", name], title, &flags, ours)?])
            }
            Measurement::Through { title, rounds, gap } => self.run_through(title, *rounds, *gap),
        }
    }

    /// Runs a scenario for some shims, under a name of its own.
    fn run_shims(
        &self,
        [scenario, name]: [&str; 2],
        title: &'static str,
        flags: &[String],
        shims: &[String],
    ) -> Result<Scenario> {
        let file = name.replace(' ', "-");
        let (json, plots) = (report_file(&file)?, plots().join(&file));
        // Those of another run must not be taken for this one's.
        let _ = fs::remove_dir_all(&plots);
        let mut bench = on_stage(&self.shimctl);
        bench.args(["--as", "2.0", "bench", "--scenario", scenario]).args(flags);
        bench.arg("--rootfs").arg(&self.rootfs).arg("--json").arg(&json).arg("--svg").arg(&plots);
        for shim in shims {
            bench.arg("--shim").arg(shim);
        }
        sh::run(bench.stdout(Stdio::null()))?;
        let command = format!("shimctl --as 2.0 bench --scenario {scenario} {}", flags.join(" "));
        let rows = found::rows(&read(&json)?, scenario)?;
        let plots = names_in(&plots)?.into_iter().map(|plot| format!("{file}/{plot}")).collect();
        Ok(Scenario { name: name.to_owned(), title, command, plots, rows })
    }

    fn run_through(&self, title: &'static str, rounds: usize, gap: u64) -> Result<Vec<Scenario>> {
        let json = report_file("through")?;
        let mut through = Command::new(&self.through);
        // The folder in which the tests look for our shim; containerd is told paths.
        through.env("SHIM_DIR", self.shimctl.parent().context("shimctl is in no folder")?);
        for shim in self.shims.iter().chain([&self.plain]) {
            through.arg("--shim").arg(shim);
        }
        through.args(["--alone", "native", "--alone", "plain"]);
        let (rounds, pause) = (rounds.to_string(), gap.to_string());
        through.args(["--rounds", &rounds, "--gap", &pause]).arg("--json").arg(&json);
        sh::run(&mut through)?;
        let report = read(&json)?;
        let suffix = if gap == 0 { "" } else { ", idle" };
        let without = if gap == 0 {
            "Without containerd, back to back"
        } else {
            "Without containerd, with pauses"
        };
        let scenario = |name: &str, title| -> Result<Scenario> {
            Ok(Scenario {
                name: format!("{name}{suffix}"),
                title,
                command: format!("through --rounds {rounds} --gap {pause}"),
                plots: Vec::new(),
                rows: found::rows(&report, name)?,
            })
        };
        Ok(vec![scenario("containerd", title)?, scenario("alone", without)?])
    }

    fn run_floor(&self, floor: Floor) -> Result<String> {
        let mut command = on_stage(&self.floor);
        sh::output(command.args(floor::arguments(&self.rootfs, floor.rounds, floor.gap)))
    }
}

fn floor_scenario(floor: Floor, rows: Vec<Row>) -> Scenario {
    let Floor { name, rounds, gap } = floor;
    Scenario {
        name: name.to_owned(),
        title: if gap == 0 { "The floor, back to back" } else { "The floor, with pauses" },
        command: format!("floor --rounds {rounds} --gap {gap}, before and after the shims"),
        plots: Vec::new(),
        rows,
    }
}

/// The command that runs a program where all shims are alike.
fn on_stage(program: &Path) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", STAGE, "sh"]);
    command.arg(program);
    command
}

/// Where the plots of a run are until it has succeeded.
pub(super) fn plots() -> PathBuf {
    sh::target().join("bench/plots")
}

/// A file for a report, which is not there yet.
fn report_file(name: &str) -> Result<PathBuf> {
    let file = sh::target().join("bench").join(format!("{name}.json"));
    match fs::remove_file(&file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(file),
    }
}

fn read(file: &Path) -> Result<Value> {
    let text = fs::read(file).with_context(|| format!("read {}", file.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("parse {}", file.display()))
}

/// The names of the files in a folder, in order; none without the folder.
fn names_in(folder: &Path) -> Result<Vec<String>> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(Vec::new()) };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry?.file_name().into_string();
        ensure!(name.is_ok(), "{}: a name that is no text", folder.display());
        names.extend(name);
    }
    names.sort();
    Ok(names)
}

/// The root filesystem of the containers.
pub(super) fn rootfs(peers: &Peers) -> Result<PathBuf> {
    let rootfs = sh::target().join("bench/rootfs");
    make_rootfs(peers.path("busybox")?, &rootfs)?;
    // Pages of a file just written count as dirty in whoever maps them, until they are on disk.
    sh::run(&mut Command::new("sync"))?;
    Ok(rootfs)
}

/// A root filesystem of one static program.
fn make_rootfs(busybox: &Path, rootfs: &Path) -> Result<()> {
    for folder in ["bin", "dev", "etc", "proc", "run", "sys", "tmp"] {
        fs::create_dir_all(rootfs.join(folder))?;
    }
    let copy = rootfs.join("bin/busybox");
    fs::copy(busybox, &copy).with_context(|| format!("copy {}", busybox.display()))?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
    for applet in ["cat", "dd", "head", "sh", "sleep", "true"] {
        let link = rootfs.join("bin").join(applet);
        if !link.is_symlink() {
            symlink("busybox", link)?;
        }
    }
    Ok(())
}
