//! What is in `/dev`: the devices that every container has, those of the spec, and the symlinks.

use std::path::Path;

use oci_spec::runtime::{LinuxDevice, LinuxDeviceType, Spec};
use shim_core::{Error, Result};

use super::{Draft, Facts, Namespaces, Source, in_container};
use crate::engine::{step::Step, wire::Text};

/// The devices that every container has: path, major, minor.
const DEFAULT: [(&str, u64, u64); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

const LINKS: [(&str, &str); 4] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
];

struct Device<'spec> {
    path: &'spec Path,
    kind: u32,
    number: u64,
    mode: u32,
    uid: u32,
    gid: u32,
}

pub(super) fn all(
    draft: &mut Draft,
    spec: &Spec,
    namespaces: &Namespaces,
    facts: &Facts,
) -> Result<()> {
    let binds = namespaces.has_users() || facts.has_no_nodes;
    let asked = spec.linux().as_ref().and_then(|linux| linux.devices().as_ref());
    let asked = asked.map(Vec::as_slice).unwrap_or_default();
    for device in asked {
        one(draft, &Device::of(device)?, binds)?;
    }
    for (path, major, minor) in DEFAULT {
        let path = Path::new(path);
        if asked.iter().any(|device| device.path() == path) {
            continue;
        }
        let number = nix::sys::stat::makedev(major, minor);
        let device = Device { path, kind: libc::S_IFCHR, number, mode: 0o666, uid: 0, gid: 0 };
        one(draft, &device, binds)?;
    }
    links(draft, facts)
}

fn one(draft: &mut Draft, device: &Device<'_>, binds: bool) -> Result<()> {
    let path = in_container(device.path)?;
    if path.as_path() == Path::new("/") {
        return Err(Error::invalid("a device can't be the root directory"));
    }
    // A user namespace may not make nodes: the host's own is shown instead.
    if binds && device.kind != libc::S_IFIFO {
        let tree = draft.file(Source::Device {
            path: device.path.to_owned(),
            kind: device.kind,
            number: device.number,
        });
        draft.step(Step::BindDevice { tree, path });
        return Ok(());
    }
    draft.step(Step::MakeDevice {
        path,
        kind: device.kind.into(),
        number: device.number,
        mode: device.mode.into(),
        uid: device.uid.into(),
        gid: device.gid.into(),
    });
    Ok(())
}

impl<'spec> Device<'spec> {
    fn of(device: &'spec LinuxDevice) -> Result<Self> {
        let path = device.path().as_path();
        let number = |part: i64| {
            u64::try_from(part)
                .ok()
                .filter(|part| *part <= u64::from(u32::MAX))
                .ok_or_else(|| Error::invalid(format!("device {} has no number", path.display())))
        };
        let kind = match device.typ() {
            LinuxDeviceType::B => libc::S_IFBLK,
            LinuxDeviceType::C | LinuxDeviceType::U => libc::S_IFCHR,
            LinuxDeviceType::P => libc::S_IFIFO,
            LinuxDeviceType::A => {
                return Err(Error::invalid(format!("device {} has no type", path.display())));
            }
        };
        let is_fifo = kind == libc::S_IFIFO;
        let (major, minor) =
            if is_fifo { (0, 0) } else { (number(device.major())?, number(device.minor())?) };
        Ok(Self {
            path,
            kind,
            number: nix::sys::stat::makedev(major, minor),
            mode: device.file_mode().unwrap_or(0o666) & 0o7777,
            uid: device.uid().unwrap_or(0),
            gid: device.gid().unwrap_or(0),
        })
    }
}

fn links(draft: &mut Draft, facts: &Facts) -> Result<()> {
    let core = facts.kcore.then_some(("/dev/core", "/proc/kcore"));
    for (path, target) in LINKS.into_iter().chain(core) {
        let (path, target) = (Text::new(path)?, Text::new(target)?);
        draft.step(Step::Link { path, target, replace: 0 });
    }
    // The multiplexer of the container's own terminals, whatever the image has there.
    let (path, target) = (Text::from(c"/dev/ptmx"), Text::from(c"pts/ptmx"));
    draft.step(Step::Link { path, target, replace: 1 });
    Ok(())
}
