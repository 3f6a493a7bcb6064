//! One step of a plan. What is declared here is what the planner writes, what the executor reads
//! and what an error names, so that the three can't drift apart. What stands behind a semicolon is
//! for the name only and does not travel.

use std::fmt;

use super::wire::{Bytes, Field, Malformed, Reader, Slot, Text};

macro_rules! steps {
    ($(
        $(#[$doc:meta])*
        $name:ident { $($field:ident: $kind:ty),* $(; $note:ident: $noted:ty)? } = $text:literal,
    )*) => {
        /// A step as it is planned. `{}` says what it does, as errors name it.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub(crate) enum Step {
            $($(#[$doc])* $name { $($field: $kind,)* $($note: $noted,)? },)*
        }

        /// A step as it is executed: the same, lent from the plan's bytes.
        #[derive(Debug)]
        pub(crate) enum Order<'plan> {
            $($(#[$doc])* $name { $($field: <$kind as Field>::Lent<'plan>),* },)*
        }

        /// The number of each step in a plan's bytes.
        #[repr(u64)]
        enum Code {
            $($name,)*
        }

        impl Step {
            /// Appends it to a plan.
            pub(crate) fn write(&self, plan: &mut Vec<u8>) {
                match self {
                    $(Self::$name { $($field,)* .. } => {
                        (Code::$name as u64).write(plan);
                        $($field.write(plan);)*
                    })*
                }
            }
        }

        impl<'plan> Order<'plan> {
            /// Takes the next one out of a plan.
            pub(crate) fn read(from: &mut Reader<'plan>) -> Result<Self, Malformed> {
                match u64::read(from)? {
                    $(code if code == Code::$name as u64 => {
                        Ok(Self::$name { $($field: <$kind as Field>::read(from)?),* })
                    })*
                    _ => Err(Malformed),
                }
            }
        }

        impl fmt::Display for Step {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$name { $($field,)* $($note,)? } => {
                        $(let _ = $field;)*
                        write!(f, $text)
                    })*
                }
            }
        }
    };
}

steps! {
    /// Takes the `tasks` files of the cgroup from the shim, which made it while this process was
    /// cloned.
    AwaitCgroup {} = "wait for the cgroup",
    /// Writes `0` to one of those, of cgroup v1. The kernel moves the writing thread itself
    /// without the lock that a write to `cgroup.procs` waits milliseconds for.
    JoinCgroup { tasks: Slot; hierarchy: Text } = "join cgroup hierarchy {hierarchy}",
    /// AppArmor's profile, from the next execve(2) on. Written while the host's procfs is at
    /// `/proc`: no container's can be mistaken for it.
    ApplyProfile { profile: Text } = "apply AppArmor profile {profile}",
    /// SELinux's label, in the same way; that of the keys that it makes until then, too.
    ApplyLabel { label: Text } = "apply SELinux label {label}",
    /// setsid(2).
    StartSession {} = "start a session",
    /// Asks the shim for what only it can set from outside, and waits until it has.
    AwaitSettings {} = "wait for the shim's settings",
    /// User and group 0 of the user namespace, and no other group.
    BecomeRoot {} = "become root of the user namespace",
    /// setns(2).
    JoinNamespace { namespace: Slot, kind: u64; path: Text } = "join namespace {path}",
    /// setns(2) with a pidfd: all namespaces of a container at once.
    JoinContainer { pidfd: Slot, kinds: u64 } = "join the container's namespaces",
    /// unshare(2): a cgroup namespace's root is the cgroup that its maker is in, so it is made
    /// after the cgroups were joined.
    NewCgroupNamespace {} = "make a cgroup namespace",
    /// A session keyring of the container's own, which its processes may search.
    JoinKeyring { name: Text } = "join session keyring {name}",
    /// The loopback interface, up.
    RaiseLoopback {} = "bring up the loopback interface",
    /// sethostname(2).
    SetHostname { name: Text } = "set hostname {name}",
    /// setdomainname(2).
    SetDomainname { name: Text } = "set domainname {name}",
    /// A kernel parameter: its file below `/proc/sys`, and its value.
    SetSysctl { file: Text, value: Text } = "set sysctl {file} to {value}",

    /// mount(2) on the host's `/` in the new mount namespace.
    Propagate { flags: u64 } = "part the mounts from the host's",
    /// The root filesystem, mounted over `/`; all later targets are found in it.
    AttachRoot { tree: Slot; path: Text } = "mount root filesystem {path}",
    /// A filesystem of its own.
    Mount {
        kind: Text, target: Text, options: Vec<(Text, Option<Text>)>, attributes: u64,
        propagation: Vec<u64>, place: u64
    } = "mount {kind} on {target}",
    /// A filesystem by mount(2), where an option is too long for fsconfig(2).
    MountWhole {
        kind: Text, source: Text, target: Text, flags: u64, options: Text, propagation: Vec<u64>,
        place: u64
    } = "mount {kind} on {target}",
    /// A file or directory of the host, opened by the shim.
    Bind {
        tree: Slot, target: Text, propagation: Vec<u64>, place: u64; source: Text
    } = "bind {source} on {target}",
    /// A change of a mount that is there already.
    Remount {
        target: Text, options: Vec<(Text, Option<Text>)>, set: u64, clear: u64
    } = "remount {target}",
    /// A directory that is made where it is missing.
    MakeDirectory { path: Text } = "make directory {path}",
    /// A device node: `S_IFCHR` or kin, its number, its permissions.
    MakeDevice { path: Text, kind: u64, number: u64, mode: u64, uid: u64, gid: u64 }
        = "device {path}",
    /// A device of the host, bound: user namespaces can't make nodes.
    BindDevice { tree: Slot, path: Text } = "device {path}",
    /// A symlink; one that is there already stays unless it is to be replaced.
    Link { path: Text, target: Text, replace: u64 } = "symlink {path}",
    /// Something that can't be read from: the host's `/dev/null` on files, an empty read-only
    /// tmpfs on directories. What isn't there is left out.
    Mask { path: Text, null: Slot } = "mask {path}",
    /// A read-only bind of a path onto itself. What isn't there is left out.
    Protect { path: Text } = "make {path} read-only",
    /// The read-only flag of a mount that had to be writable until now.
    Seal { path: Text } = "make {path} read-only",
    /// pivot_root(2), and away with the host's mounts.
    PivotRoot {} = "pivot root",
    /// Takes a mount of the host away; where that is forbidden it is covered.
    Hide { path: Text } = "hide {path} of the host",
    /// chroot(2), where the host's root filesystem is one that can't be pivoted.
    ChangeRoot {} = "change root",
    /// Propagation of the container's `/`.
    PropagateRoot { flags: u64 } = "set propagation of the root filesystem",
    /// The read-only flag of the container's `/`.
    SealRoot {} = "make the root filesystem read-only",

    /// Opens a terminal in the container's devpts, sends its master to the shim, and takes the
    /// other end as controlling terminal and streams.
    OpenTerminal { uid: u64, height: u64, width: u64, console: u64 } = "open a terminal",
    /// The three streams.
    PlaceStreams { stdin: Slot, stdout: Slot, stderr: Slot } = "set up the standard streams",
    /// setrlimit(2).
    SetLimit { resource: u64, soft: u64, hard: u64; name: Text } = "set {name} to {soft}:{hard}",
    /// sched_setattr(2).
    Schedule {
        policy: u64, flags: u64, nice: u64, priority: u64, runtime: u64, deadline: u64, period: u64
    } = "set the scheduler",
    /// ioprio_set(2).
    SetIoPriority { priority: u64 } = "set the io priority",
    /// sched_setaffinity(2).
    SetAffinity { mask: Vec<u64> } = "set the cpu affinity",
    /// set_mempolicy(2).
    SetMemoryPolicy { mode: u64, nodes: Vec<u64> } = "set the memory policy",
    /// personality(2).
    SetPersonality { domain: u64 } = "set the personality",
    /// umask(2).
    SetUmask { mask: u64 } = "set the umask",
    /// prctl(2), `PR_SET_NO_NEW_PRIVS`.
    ForbidNewPrivileges {} = "set no_new_privs",
    /// seccomp(2).
    FilterCalls { program: Bytes, flags: u64 } = "load the seccomp filter",
    /// Drops what is not in this set from the bounding set, and keeps the rest over the change of
    /// ids.
    BoundCapabilities { bounding: u64 } = "drop capabilities from the bounding set",
    /// Finds the user's home in the container's `/etc/passwd`, for `HOME`.
    FindHome { uid: u64 } = "look up the home directory of user {uid}",
    /// chdir(2); a directory that may not be entered yet is tried again after the change of ids.
    Enter { path: Text } = "change to directory {path}",
    /// setgroups(2), setresgid(2), setresuid(2).
    SetIds { uid: u64, gid: u64, groups: Vec<u64> } = "set uid {uid} and gid {gid}",
    /// chdir(2) if it has not been done; the directory has to be one of the container.
    EnterAgain { path: Text } = "change to directory {path}",
    /// capset(2), and the ambient set.
    SetCapabilities { effective: u64, permitted: u64, inheritable: u64, ambient: u64 }
        = "set capabilities",
    /// Marks every descriptor from this number on close-on-exec.
    CloseFiles { from: u64 } = "mark files close-on-exec",
    /// Finds the program, as Go's exec.LookPath does.
    FindProgram { name: Text, candidates: Vec<Text> } = "exec: {name}",
    /// Tells the shim to run the hooks of the host's side, and waits for them.
    AwaitHooks {} = "wait for the hooks",
    /// Tells the shim that everything is done, and waits for start.
    AwaitStart { with_state: u64 } = "wait for start",
    /// The same where another process will start the container, after the one that made it has ended:
    /// a byte comes by one pipe, and what goes wrong from then on goes into another. Hooks find the
    /// container's state in a file that is there already.
    AwaitStarter { go: Slot, answer: Slot, state: Option<Slot> } = "wait for start",
    /// A hook, run to its end by the init process.
    RunHook {
        path: Text, arguments: Vec<Text>, environment: Vec<Text>, seconds: u64, output: Slot;
        moment: Text
    } = "{moment} hook {path}",
    /// execve(2).
    Execute { arguments: Vec<Text>, environment: Vec<Text> } = "exec",
}

/// The part of a step that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Part {
    /// The step itself.
    Whole,
    /// The plan's bytes make no sense.
    Plan,
    /// Finding the target in the root filesystem.
    Target,
    /// Making the target or a directory above it.
    MakeTarget,
    /// Opening the filesystem's type.
    Open,
    /// Configuring the filesystem.
    Configure,
    /// Making the mount.
    Make,
    /// Putting the mount into its place.
    Attach,
    /// Setting the mount's flags.
    Flags,
    /// Setting the mount's propagation.
    Propagation,
    /// The target is inside procfs.
    InsideProc,
    /// The target has to be a directory, reached without a symlink.
    NotOrdinary,
    /// What is there is not what was made.
    Verify,
    /// Changing the owner.
    Owner,
    /// Changing the permissions.
    Mode,
    /// Taking the old root away.
    OldRoot,
    /// Opening procfs.
    Proc,
    /// Talking to the shim.
    Report,
    /// Setting supplementary groups.
    Groups,
    /// Setting group ids.
    Group,
    /// Setting user ids.
    User,
    /// Setting the ambient set.
    Ambient,
    /// The directory is outside of the container.
    Outside,
    /// No candidate is a program.
    NotInPath,
    /// The program can't be looked at.
    Stat,
    /// The program is a directory.
    IsDirectory,
    /// The program may not be executed.
    NotExecutable,
    /// Joining namespaces, in the stem.
    Join,
    /// Making the process, in the stem.
    Clone,
    /// Making a time namespace, in the stem.
    Clock,
    /// A hook said no; the number is its exit code.
    HookExit,
    /// A hook was killed; the number is the signal.
    HookSignal,
    /// A hook took too long.
    HookTime,
    /// Copying what a mount covers.
    CopyUp,
}

impl Part {
    /// Reads the number that a child sent.
    pub(crate) fn of(number: u32) -> Self {
        const ALL: [Part; 34] = [
            Part::Whole,
            Part::Plan,
            Part::Target,
            Part::MakeTarget,
            Part::Open,
            Part::Configure,
            Part::Make,
            Part::Attach,
            Part::Flags,
            Part::Propagation,
            Part::InsideProc,
            Part::NotOrdinary,
            Part::Verify,
            Part::Owner,
            Part::Mode,
            Part::OldRoot,
            Part::Proc,
            Part::Report,
            Part::Groups,
            Part::Group,
            Part::User,
            Part::Ambient,
            Part::Outside,
            Part::NotInPath,
            Part::Stat,
            Part::IsDirectory,
            Part::NotExecutable,
            Part::Join,
            Part::Clone,
            Part::Clock,
            Part::HookExit,
            Part::HookSignal,
            Part::HookTime,
            Part::CopyUp,
        ];
        usize::try_from(number).ok().and_then(|at| ALL.get(at)).copied().unwrap_or(Self::Plan)
    }

    /// What was being done, where that is more than the step's name says.
    pub(crate) fn what(self) -> Option<&'static str> {
        Some(match self {
            Self::Whole | Self::Make | Self::Clone | Self::Open => return None,
            Self::Plan => "read the plan",
            Self::Target => "find the target",
            Self::MakeTarget => "make the target",
            Self::Configure => "set its options",
            Self::Attach => "attach",
            Self::Flags => "set its flags",
            Self::Propagation => "set its propagation",
            Self::InsideProc => "the target is inside proc",
            Self::NotOrdinary => "the target is not an ordinary directory",
            Self::Verify => "verify",
            Self::Owner => "change its owner",
            Self::Mode => "change its mode",
            Self::OldRoot => "take the old root away",
            Self::Proc => "open proc",
            Self::Report => "talk to the shim",
            Self::Groups => "set supplementary groups",
            Self::Group => "set group ids",
            Self::User => "set user ids",
            Self::Ambient => "set the ambient set",
            Self::Outside => "the directory is outside of the container",
            Self::NotInPath => "executable file not found in $PATH",
            Self::Stat => "stat",
            Self::IsDirectory => "is a directory",
            Self::NotExecutable => "permission denied",
            Self::Join => "join namespaces",
            Self::Clock => "make a time namespace",
            Self::HookExit => "exit status",
            Self::HookSignal => "killed by signal",
            Self::HookTime => "no end in time",
            Self::CopyUp => "copy what it covers",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_read_as_it_was_written() {
        let step = Step::MakeDevice {
            path: Text::new("/dev/null").unwrap(),
            kind: 1,
            number: 2,
            mode: 3,
            uid: 4,
            gid: 5,
        };
        assert_eq!(step.to_string(), "device /dev/null");
        let mut plan = Vec::new();
        step.write(&mut plan);
        match Order::read(&mut Reader::new(&plan)) {
            Ok(Order::MakeDevice { path, kind: 1, number: 2, mode: 3, uid: 4, gid: 5 }) => {
                assert_eq!(path, c"/dev/null");
            }
            other => panic!("{other:?}"),
        }
        assert!(Order::read(&mut Reader::new(&u64::MAX.to_ne_bytes())).is_err());
    }

    #[test]
    fn parts_keep_their_numbers() {
        for number in 0..=Part::CopyUp as u32 {
            assert_eq!(Part::of(number) as u32, number);
        }
        assert_eq!(Part::of(1000), Part::Plan);
    }
}
