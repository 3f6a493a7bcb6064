//! What boots a machine of the sandbox shim: unpacked packages, our own program, an image of both.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::{env, fs};

use anyhow::{Context, Result, ensure};
use shim_sandbox::channel::Word;
use shim_sandbox::image::{Image, Source};
use shim_sandbox::vm::{Accelerator, Launch, VmConfig};

use crate::debs::{Patched, Store};
use crate::guest::image::{machine, release};
use crate::target;

/// The name by which containerd knows our shim.
pub const RUNTIME: &str = "io.containerd.sandbox.v2";

/// Our program's name.
const BINARY: &str = "containerd-shim-sandbox-v2";

/// The user whose the machines are: nobody.
const USER: (u32, u32) = (65534, 65534);

/// What makes a program static and small, as `cargo xtask build` does, without optimising: the crates it
/// is made of are those of the tests.
const STATIC: [&str; 6] =
    ["-C", "target-feature=+crt-static", "-C", "relocation-model=static", "-C", "strip=symbols"];

/// All that a machine is started from.
#[derive(Clone, Debug)]
pub struct Bed {
    /// QEMU, run by its own loader with its own libraries.
    pub qemu: Launch,
    /// virtiofsd, which runs by itself.
    pub virtiofsd: Launch,
    /// The image of the unpacked kernel, and of our own program.
    pub image: Image,
}

impl Bed {
    /// The bed of this build; made once a process.
    ///
    /// # Errors
    /// When a package does not come, or our program cannot be built.
    pub fn open() -> Result<&'static Self> {
        static BED: OnceLock<Result<Bed, String>> = OnceLock::new();
        let made = BED.get_or_init(|| Self::make().map_err(|error| format!("{error:#}")));
        made.as_ref().map_err(|error| anyhow::anyhow!("{error}"))
    }

    fn make() -> Result<Self> {
        let store = Store::open();
        let machine = machine(&store)?;
        let ourselves = build()?;
        let release = release(&machine)?;
        let source = Source::Files {
            kernel: machine.join("boot").join(format!("vmlinuz-{release}")),
            modules: machine.join("lib/modules").join(release),
        };
        let image = Image::build(&source, &ourselves, &target::dir().join("sandbox-image"))?;
        let virtiofsd = Launch {
            ourselves: ourselves.clone(),
            path: Patched::VIRTIOFSD.fetch(&store)?,
            arguments: Vec::new(),
            sees: Vec::new(),
            user: (0, 0),
        };
        Ok(Self { qemu: qemu(&machine, ourselves)?, virtiofsd, image })
    }

    /// Installs the shim in a folder of its own, with a configuration, `config.toml`, that starts its
    /// machines from this bed. Returns the folder.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn installed(&self) -> Result<PathBuf> {
        let dir = target::dir().join("sandbox-installed");
        fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        let partial = dir.join(format!("{BINARY}.{}", std::process::id()));
        fs::copy(&self.qemu.ourselves, &partial).context("copy the shim")?;
        fs::rename(&partial, dir.join(BINARY))?;
        let image = self.image.kernel();
        let image = image.parent().context("the image has no folder")?;
        let config = format!(
            "image = {image:?}\nboot_seconds = 180\n\
             [qemu]\npath = {:?}\narguments = {:?}\nsees = {:?}\naccel = \"tcg\"\n\
             [virtiofsd]\npath = {:?}\n",
            self.qemu.path, self.qemu.arguments, self.qemu.sees, self.virtiofsd.path,
        );
        fs::write(dir.join("config.toml"), config).context("write the configuration")?;
        Ok(dir)
    }

    /// The configuration of a small machine.
    #[must_use]
    pub fn config(&self, word: &Word) -> VmConfig {
        VmConfig {
            // Whether KVM works is another question.
            accelerator: Accelerator::Tcg,
            processors: 1,
            memory: 256,
            kernel: self.image.kernel(),
            initrd: self.image.initrd(),
            word: word.clone(),
            append: String::new(),
            share: None,
            disks: Vec::new(),
            nics: Vec::new(),
            cgroups: Vec::new(),
        }
    }
}

fn qemu(machine: &Path, ourselves: PathBuf) -> Result<Launch> {
    let libraries = ["lib", "usr/lib"].map(|lib| machine.join(lib).join("x86_64-linux-gnu"));
    let path = env::join_paths(&libraries)?.to_string_lossy().into_owned();
    let program = machine.join("usr/bin/qemu-system-x86_64");
    let mut arguments = vec!["--library-path".to_owned(), path, program.display().to_string()];
    for firmware in ["usr/share/qemu", "usr/share/seabios"] {
        arguments.extend(["-L".to_owned(), machine.join(firmware).display().to_string()]);
    }
    let sees = ["lib", "usr"].map(|folder| machine.join(folder)).to_vec();
    let path = libraries[0].join("ld-linux-x86-64.so.2");
    Ok(Launch { ourselves, path, arguments, sees, user: USER })
}

/// Builds our program as a static one, and returns where it is. Outside cargo whatever lies beside the
/// executable is what is meant.
fn build() -> Result<PathBuf> {
    let binary = target::profile_dir()?.join(BINARY);
    if let Some(cargo) = env::var_os("CARGO") {
        let mut command = Command::new(cargo);
        command.args(["rustc", "--quiet", "--package", "shim-sandbox", "--bin", BINARY]);
        command.env("CARGO_TARGET_DIR", target::dir());
        let status = command.arg("--").args(STATIC).status().context("run cargo")?;
        ensure!(status.success(), "cargo rustc --bin {BINARY}: {status}");
    }
    // The next build of something else may put another in its place.
    let kept = target::dir().join("sandbox-program");
    let partial = target::dir().join(format!("sandbox-program.{}", std::process::id()));
    fs::copy(&binary, &partial).with_context(|| format!("copy {}", binary.display()))?;
    fs::rename(&partial, &kept)?;
    Ok(kept)
}
