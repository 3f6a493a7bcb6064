//! `check`: whether this host can run pods in machines, and what it lacks.

use std::{fs, path::Path};

use shim_core::{Error, Kind, Result};
use shim_runc::Cage;

use super::machine;
use crate::{
    config::{Backend, Config},
    image::Image,
};

/// One thing that a host has, or not.
struct Finding {
    what: &'static str,
    /// What is there, or why it is not as it should be.
    told: Result<String>,
    /// How to get it.
    remedy: &'static str,
}

/// Looks at everything that a pod takes, a line each.
///
/// # Errors
/// `FailedPrecondition` with all lines when something is missing.
pub fn check() -> Result<String> {
    let config = Config::find(&[])?;
    let mut findings = vec![
        Finding {
            what: "cgroups",
            told: Cage::at("/shim-sandbox-check")
                .and_then(|cage| cage.pids())
                .map(|_| "here".into()),
            remedy: "mount cgroup v2, or v1 with its controllers",
        },
        Finding {
            what: "/run",
            told: writable(Path::new("/run")),
            remedy: "the shim has to run as root",
        },
    ];
    match config.backend {
        Backend::Gvisor => findings.push(Finding {
            what: "runsc",
            told: machine::find(&config.runsc.path).map(|path| path.display().to_string()),
            remedy: "install gVisor, or set runsc.path",
        }),
        Backend::Qemu | Backend::Process => findings.extend(of_machines(&config)),
    }
    let is_well = findings.iter().all(|finding| finding.told.is_ok());
    let text: String = findings.iter().map(line).collect();
    if is_well { Ok(text) } else { Err(Error::new(Kind::FailedPrecondition, text)) }
}

fn of_machines(config: &Config) -> Vec<Finding> {
    let program = |path: &Path| machine::find(path).map(|path| path.display().to_string());
    vec![
        Finding {
            what: "QEMU",
            told: program(&config.qemu.path),
            remedy: "apt install qemu-system-x86, or set qemu.path",
        },
        Finding {
            what: "virtiofsd",
            told: program(&config.virtiofsd.path),
            remedy: "apt install virtiofsd (Debian 13 on), or set virtiofsd.path",
        },
        Finding {
            what: "image",
            told: Image::open(&config.image).map(|image| format!("kernel {}", image.about.release)),
            remedy: "apt install linux-image-cloud-amd64, then `image build`",
        },
        Finding {
            what: "user",
            told: machine::user(&config.user).map(|(user, _)| format!("{} ({user})", config.user)),
            remedy: "set user to one that is there",
        },
        Finding {
            what: "/dev/net/tun",
            told: present(Path::new("/dev/net/tun")),
            remedy: "modprobe tun",
        },
        Finding { what: "accelerator", told: Ok(accelerator(config)), remedy: "" },
    ]
}

/// What runs guests. A device that opens proves nothing: only an administrator's word counts.
fn accelerator(config: &Config) -> String {
    let has_kvm = Path::new("/dev/kvm").exists();
    match (machine::is_kvm(config), has_kvm) {
        (true, true) => "KVM, as configured; no guest was tried on it".to_owned(),
        (true, false) => "KVM is configured, but there is no /dev/kvm".to_owned(),
        (false, true) => {
            "TCG, which is slow; /dev/kvm is here: qemu.accel = \"kvm\" tries it".to_owned()
        }
        (false, false) => "TCG, which is slow; there is no /dev/kvm".to_owned(),
    }
}

fn present(path: &Path) -> Result<String> {
    fs::metadata(path).map(|_| "here".to_owned()).map_err(Error::from)
}

fn writable(path: &Path) -> Result<String> {
    nix::unistd::access(path, nix::unistd::AccessFlags::W_OK)?;
    Ok("can be written".to_owned())
}

fn line(finding: &Finding) -> String {
    match &finding.told {
        Ok(told) => format!("ok       {}: {told}\n", finding.what),
        Err(err) => format!("missing  {}: {err:#}; {}\n", finding.what, finding.remedy),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_is_missing_and_how_to_get_it() {
        let told = Err(Error::not_found("not here"));
        let missing = Finding { what: "QEMU", told, remedy: "apt install it" };
        assert_eq!(line(&missing), "missing  QEMU: not here; apt install it\n");
        let here = Finding { what: "QEMU", told: Ok("/q".into()), remedy: "" };
        assert_eq!(line(&here), "ok       QEMU: /q\n");
    }
}
