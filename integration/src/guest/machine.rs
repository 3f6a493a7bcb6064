//! A booted guest: QEMU, and the line to its agent. It ends when it is dropped.

use std::fs::File;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow, bail};

use super::agent::PORT;
use super::command;
use super::image::Image;
use super::wire::Frame;
use crate::wait::{self, SOON};

/// How long a guest may take to come up. On a quiet machine it is ten seconds.
const BOOT: Duration = Duration::from_secs(600);

/// How much later than the guest's own limit the host's is.
const GRACE: Duration = Duration::from_secs(60);

/// The kernel's command line. Its protection against other programs on the same core would more than
/// double the time of everything: no such program runs on a core that is software. A timer that is
/// late on a busy host must not count as a broken one, nor a disk that is.
const KERNEL: &str = "console=ttyS0 quiet loglevel=4 panic=-1 reboot=t root=/dev/nvme0n1 rw \
    mitigations=off no_timer_check audit=0 nokaslr cryptomgr.notests systemd.show_status=0 \
    systemd.default_timeout_start_sec=600";

/// A guest that is up.
#[derive(Debug)]
pub struct Machine {
    qemu: Child,
    line: UnixStream,
    console: PathBuf,
}

/// One of a program's two outputs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

impl Machine {
    /// Boots the image with a second disk. Call it in a thread that outlives the guest: its end is
    /// QEMU's. Files of the guest's own go to `dir`.
    ///
    /// # Errors
    /// When QEMU does not start, or the guest does not come up; with the console's last lines.
    pub fn boot(image: &Image, disk: &Path, dir: &Path) -> Result<Self> {
        let name = format!("shim-guest-{}", process::id());
        let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name)?)
            .context("listen for the guest")?;
        listener.set_nonblocking(true)?;
        let console = dir.join("console");
        let log = dir.join("qemu.log");
        let mut qemu = qemu(image, disk, &name, &console)?
            .env("TMPDIR", dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()
            .context("start QEMU")?;
        let connected = wait::until("QEMU's line", SOON * 3, || {
            if let Some(status) = qemu.try_wait()? {
                return Ok(Err(anyhow!("QEMU: {status}: {}", command::last_lines(&log))));
            }
            Ok(Ok(listener.accept()?.0))
        });
        let line = match connected.and_then(|connected| connected) {
            Ok(line) => line,
            Err(error) => {
                end(&mut qemu);
                return Err(error);
            }
        };
        line.set_nonblocking(false)?;
        let mut guest = Self { qemu, line, console };
        match guest.receive(Instant::now() + BOOT).context("wait for the guest to come up")? {
            Frame::Hello => Ok(guest),
            other => bail!("the guest's first word is {other:?}"),
        }
    }

    /// Runs a program in the guest and hands over what it writes; returns its exit code, which is
    /// 124 when it took longer than `limit`.
    ///
    /// # Errors
    /// When the guest is gone, with the console's last lines; it is of no use afterwards.
    pub fn run(
        &mut self,
        arguments: &[&str],
        limit: Duration,
        mut each: impl FnMut(Stream, &[u8]),
    ) -> Result<u8> {
        let seconds = format!("{}", limit.as_secs());
        let words = ["timeout", "-k", "5", &seconds].into_iter().chain(arguments.iter().copied());
        Frame::Run(words.map(str::to_owned).collect()).send(&mut self.line)?;
        let until = Instant::now() + limit + GRACE;
        loop {
            match self.receive(until).with_context(|| format!("run {arguments:?}"))? {
                Frame::Out(bytes) => each(Stream::Out, &bytes),
                Frame::Err(bytes) => each(Stream::Err, &bytes),
                Frame::Exit(code) => return Ok(code),
                other => bail!("{arguments:?}: the guest answered {other:?}"),
            }
        }
    }

    /// QEMU's process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.qemu.id()
    }

    fn receive(&mut self, until: Instant) -> Result<Frame> {
        let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        self.line.set_read_timeout(Some(left))?;
        Frame::receive(&mut self.line).map_err(|error| self.lost(error))
    }

    /// Why the guest says nothing.
    fn lost(&self, error: io::Error) -> Error {
        let why = match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                anyhow!("the guest says nothing any more")
            }
            io::ErrorKind::UnexpectedEof => anyhow!("the guest is gone"),
            _ => error.into(),
        };
        why.context(format!("the console's last lines:\n{}", command::last_lines(&self.console)))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Nothing that it has written is wanted.
        end(&mut self.qemu);
    }
}

fn end(qemu: &mut Child) {
    // Both fail only when it has ended.
    let _ = qemu.kill();
    let _ = qemu.wait();
}

/// QEMU's command: run by its own loader with its own libraries, so the host's do not matter, and
/// never alive without us.
///
/// KVM is not asked for: a device node that opens proves little, and a guest that fails once in a
/// while is worse than a slow one.
fn qemu(image: &Image, disk: &Path, line: &str, console: &Path) -> Result<Command> {
    let machine = &image.machine;
    let libraries = ["lib", "usr/lib"].map(|lib| machine.join(lib).join("x86_64-linux-gnu"));
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(libraries[0].join("ld-linux-x86-64.so.2"));
    command.arg("--library-path").arg(std::env::join_paths(&libraries)?);
    command.arg(machine.join("usr/bin/qemu-system-x86_64"));
    for firmware in ["usr/share/qemu", "usr/share/seabios"] {
        command.arg("-L").arg(machine.join(firmware));
    }
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    command.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-M", "q35,sata=off,smbus=off"]);
    command.args(["-smp", "2", "-m", "2048", "-append", KERNEL, "-kernel"]).arg(image.kernel()?);
    command
        .arg("-drive")
        .arg(format!("file={},if=none,id=root,format=raw,snapshot=on", escaped(&image.disk)));
    command.args(["-device", "nvme,drive=root,serial=root"]);
    command
        .arg("-drive")
        .arg(format!("file={},if=none,id=bed,format=raw,readonly=on", escaped(disk)));
    command.args(["-device", "virtio-blk-pci,drive=bed", "-device", "virtio-serial-pci"]);
    command.arg("-chardev").arg(format!("socket,id=line,path={line},abstract=on"));
    command.arg("-device").arg(format!("virtserialport,chardev=line,name={PORT}"));
    command.arg("-serial").arg(format!("file:{}", console.display()));
    Ok(command)
}

/// A path as a value of QEMU's options: a comma would end it.
fn escaped(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}
