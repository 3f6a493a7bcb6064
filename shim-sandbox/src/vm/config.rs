//! What a machine is made of, as plain data.

use std::path::PathBuf;

use crate::channel::Word;

/// A machine to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmConfig {
    /// What executes the guest's code.
    pub accelerator: Accelerator,
    /// How many processors.
    pub processors: u32,
    /// MiB.
    pub memory: u32,
    /// The kernel's file.
    pub kernel: PathBuf,
    /// The first filesystem's file.
    pub initrd: PathBuf,
    /// The word that the guest is to greet with.
    pub word: Word,
    /// More of the kernel's command line.
    pub append: String,
    /// The tag of the share, if there is one.
    pub share: Option<String>,
    /// Disks, in the order of their files.
    pub disks: Vec<Disk>,
    /// Network cards, in the order of their taps.
    pub nics: Vec<Nic>,
    /// Files of cgroups that the machine's process joins by writing to: `tasks`, `cgroup.procs`.
    pub cgroups: Vec<PathBuf>,
}

/// What executes the guest's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accelerator {
    /// The processor.
    Kvm,
    /// The machine's program.
    Tcg,
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// By which the guest finds it: up to 20 letters and digits.
    pub serial: String,
    /// Whether the guest cannot write to it, whatever it does.
    pub is_readonly: bool,
}

/// A network card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nic {
    /// Its address.
    pub mac: [u8; 6],
}

/// How a program that handles what guests say is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Our own program, which confines the other one: `/proc/self/exe` of a shim.
    pub ourselves: PathBuf,
    /// The program's path.
    pub path: PathBuf,
    /// Arguments before ours.
    pub arguments: Vec<String>,
    /// Folders and files that it needs beside the system's libraries.
    pub sees: Vec<PathBuf>,
    /// The user and group that it becomes, if it does.
    pub user: (u32, u32),
}
