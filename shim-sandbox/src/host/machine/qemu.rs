//! A virtual machine: QEMU, with virtiofsd beside it.

use std::path::{Path, PathBuf};

use nix::unistd::User;
use shim_core::{Context, Error, Kind, Result, linux::find_program};

use super::{Body, Order, Started};
use crate::{
    Build,
    config::{Accel, Config, Program},
    host::spec::Places,
    image::Image,
    vm::{
        Accelerator, Booted, Files, Hypervisor, Launch, Nic, VmConfig, qemu::Qemu,
        virtiofsd::Virtiofsd,
    },
};

/// Our own program, which confines the others.
const SELF: &str = "/proc/self/exe";

/// The name of the share.
const SHARE: &str = "pod";

/// Where programs are looked for: containerd's environment is not ours to trust with more.
const PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/libexec:/usr/lib/qemu";

/// Starts the file server and the machine.
pub(super) async fn start(order: Order<'_>) -> Result<Started> {
    let config = order.config;
    let image = Image::open(&config.image)?;
    let build = Build::own()?;
    let user = user(&config.user)?;
    let files = launch(&config.virtiofsd, (0, 0))?;
    let (server, share) =
        Virtiofsd::start(order.reaper, &files, order.doors.clone(), order.share, order.folder)
            .await
            .context("start virtiofsd")?;
    let program = Program {
        path: config.qemu.path.clone(),
        arguments: config.qemu.arguments.clone(),
        sees: config.qemu.sees.clone(),
    };
    let qemu = Qemu { launch: launch(&program, user)? };
    let (nics, taps) = order.taps.into_iter().map(|tap| (Nic { mac: tap.mac }, tap.file)).unzip();
    let machine = VmConfig {
        accelerator: accelerator(config),
        processors: order.size.processors,
        memory: order.size.memory,
        kernel: image.kernel(),
        initrd: image.initrd(),
        word: order.word.clone(),
        append: config.qemu.append.clone(),
        share: Some(SHARE.to_owned()),
        disks: Vec::new(),
        nics,
        cgroups: order.doors,
    };
    let given = Files { share: Some(share), taps, disks: Vec::new() };
    let Booted { vm, line } =
        qemu.boot(order.reaper, &machine, given).await.context("start QEMU")?;
    let body = Body { vm, files: Some(server.exited()), _servants: Some(server) };
    let share_tag = SHARE.to_owned();
    Ok(Started { body, line, build, places: Places::default(), share_tag })
}

fn accelerator(config: &Config) -> Accelerator {
    if is_kvm(config) { Accelerator::Kvm } else { Accelerator::Tcg }
}

/// Whether the processor runs the guest. That /dev/kvm opens proves nothing: a processor that runs guests
/// is named by the administrator.
pub(in crate::host) fn is_kvm(config: &Config) -> bool {
    config.qemu.accel == Accel::Kvm
}

fn launch(program: &Program, user: (u32, u32)) -> Result<Launch> {
    let path = find(&program.path)?;
    let (arguments, sees) = (program.arguments.clone(), program.sees.clone());
    Ok(Launch { ourselves: PathBuf::from(SELF), path, arguments, sees, user })
}

/// Finds a program by its path, or its name where programs are.
///
/// # Errors
/// `FailedPrecondition` when it is not there.
pub(in crate::host) fn find(program: &Path) -> Result<PathBuf> {
    let text = program.to_string_lossy();
    let found = if program.is_absolute() {
        program.exists().then(|| program.to_owned())
    } else {
        find_program(&text, PATH).map(PathBuf::from)
    };
    found.ok_or_else(|| {
        let why =
            format!("{text} is not here: `containerd-shim-sandbox-v2 check` says what is missing");
        Error::new(Kind::FailedPrecondition, why)
    })
}

/// Looks up whose a machine is to be.
///
/// # Errors
/// `InvalidArgument` when there is no such user, or it is root.
pub(in crate::host) fn user(name: &str) -> Result<(u32, u32)> {
    let found = User::from_name(name).with_context(|| format!("look the user {name:?} up"))?;
    let user = found.ok_or_else(|| Error::invalid(format!("user: there is no user {name:?}")))?;
    if user.uid.is_root() {
        return Err(Error::invalid("user: a machine is never root's"));
    }
    Ok((user.uid.as_raw(), user.gid.as_raw()))
}
