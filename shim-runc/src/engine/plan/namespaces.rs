//! Namespaces: new ones, those of others, and what depends on having one's own.

use std::{fmt::Write, path::PathBuf};

use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType, Spec};
use shim_core::{Error, Kind, Result};

use super::{Draft, Idmap, Source};
use crate::engine::{
    net::Moves,
    step::Step,
    wire::{Slot, Text},
};

const NEWTIME: i32 = 0x80;

/// What a container shares with nobody, and what with whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Namespaces {
    /// `CLONE_NEW*` flags of those to make.
    new: i32,
    joined: Vec<Joined>,
    mappings: Option<Mappings>,
    clock: Option<String>,
    /// A kernel parameter of the network is set, which must not be the host's.
    sets_network: bool,
}

/// A namespace that exists already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Joined {
    pub(crate) kind: i32,
    pub(crate) path: PathBuf,
}

/// Which ids a user namespace has, as `uid_map` and `gid_map` take them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mappings {
    pub(crate) users: String,
    pub(crate) groups: String,
}

impl Mappings {
    pub(super) fn of(users: &[LinuxIdMapping], groups: &[LinuxIdMapping]) -> Self {
        Self { users: map(users), groups: map(groups) }
    }
}

impl Namespaces {
    /// Reads a spec's namespaces and checks them against each other.
    pub(crate) fn of(spec: &Spec) -> Result<Self> {
        let mut all = Self::default();
        let Some(linux) = spec.linux() else {
            return Err(Error::invalid("the spec has no linux section"));
        };
        for namespace in linux.namespaces().iter().flatten() {
            let kind = kind_of(namespace.typ());
            if all.has(kind) {
                let kind = namespace.typ();
                return Err(Error::invalid(format!("namespace {kind} is listed twice")));
            }
            match namespace.path() {
                Some(path) if !path.as_os_str().is_empty() => {
                    all.joined.push(Joined { kind, path: path.clone() });
                }
                _ => all.new |= kind,
            }
        }
        if !all.is_new(libc::CLONE_NEWNS) {
            let why = "a container without a mount namespace of its own is not supported";
            return Err(Error::new(Kind::Unsupported, why));
        }
        let users = linux.uid_mappings().as_deref().unwrap_or_default();
        let groups = linux.gid_mappings().as_deref().unwrap_or_default();
        if all.is_new(libc::CLONE_NEWUSER) {
            if users.is_empty() || groups.is_empty() {
                return Err(Error::invalid("a user namespace needs uid and gid mappings"));
            }
            all.mappings = Some(Mappings::of(users, groups));
        } else if !(all.has(libc::CLONE_NEWUSER) || users.is_empty() && groups.is_empty()) {
            return Err(Error::invalid("id mappings are given but no user namespace"));
        }
        let mut sysctl = linux.sysctl().iter().flatten();
        all.sets_network = sysctl.any(|(key, _)| key.starts_with("net"));
        all.clock = clock(spec, &all)?;
        Ok(all)
    }

    /// Whether the container has a namespace of its own or of another container of this kind.
    pub(crate) fn has(&self, kind: i32) -> bool {
        self.is_new(kind) || self.joined.iter().any(|joined| joined.kind == kind)
    }

    /// Whether one is made.
    pub(crate) fn is_new(&self, kind: i32) -> bool {
        self.new & kind != 0
    }

    /// Whether ids inside are other ids outside.
    pub(crate) fn has_users(&self) -> bool {
        self.has(libc::CLONE_NEWUSER)
    }

    /// The `CLONE_NEW*` flags of a first process that can be made before its plan is known; none where
    /// more belongs to its making than flags.
    pub(crate) fn alone(&self) -> Option<u64> {
        let joins_pids = self.joined.iter().any(|joined| joined.kind == libc::CLONE_NEWPID);
        let is_plain = !(self.has_users() || self.clock.is_some() || joins_pids);
        is_plain.then(|| self.cloned())
    }

    /// The cgroup namespace shows the cgroup of the moment when it is made: after v1's hierarchies were
    /// joined, and even `CLONE_INTO_CGROUP` comes after it in the kernel.
    fn cloned(&self) -> u64 {
        u64::from((self.new & !(libc::CLONE_NEWCGROUP | NEWTIME)).cast_unsigned())
    }

    /// Plans the way into them.
    pub(super) fn enter(&self, draft: &mut Draft) -> Result<()> {
        let request = &mut draft.plan.request;
        request.namespaces = self.cloned();
        if let Some(clock) = &self.clock {
            request.clock = Some(Text::new(clock)?);
        }
        draft.plan.mappings.clone_from(&self.mappings);
        let mut joins = Vec::new();
        for Joined { kind, path } in &self.joined {
            let (kind, path) = (*kind, path.clone());
            let other = kind == libc::CLONE_NEWNET && self.sets_network;
            let slot = draft.file(Source::Namespace { path: path.clone(), kind, other });
            if kind == libc::CLONE_NEWPID {
                draft.plan.request.pids = Some(slot);
            } else {
                joins.push((slot, u64::from(kind.cast_unsigned()), path));
            }
        }
        if self.has_users() {
            // Others come before the user namespace: only the host's root may join them all.
            joins.sort_by_key(|(_, kind, _)| *kind == u64::from(USER));
            draft.plan.request.joins =
                joins.into_iter().map(|(slot, kind, _)| (slot, kind)).collect();
            draft.step(Step::BecomeRoot {});
        } else {
            for (namespace, kind, path) in joins {
                draft.step(Step::JoinNamespace { namespace, kind, path: Text::new(path)? });
            }
        }
        if self.is_new(libc::CLONE_NEWCGROUP) {
            draft.step(Step::NewCgroupNamespace {});
        }
        Ok(())
    }

    /// Plans the way of one more process into a container's namespaces.
    pub(super) fn follow(&self, draft: &mut Draft) {
        let (pidfd, kinds) = self.container(draft);
        draft.step(Step::JoinContainer { pidfd, kinds });
        if self.has_users() {
            draft.step(Step::BecomeRoot {});
        }
    }

    /// The same where somebody inside may look into processes: another process joins, and what that
    /// clones never has the host's root.
    pub(super) fn follow_between(&self, draft: &mut Draft) {
        let way = self.container(draft);
        draft.plan.request.joins.push(way);
    }

    /// The way to a container by its init process, the pid namespace apart.
    fn container(&self, draft: &mut Draft) -> (Slot, u64) {
        let all = self.joined.iter().fold(self.new, |all, joined| all | joined.kind);
        let pidfd = draft.file(Source::Init);
        if all & libc::CLONE_NEWPID != 0 {
            draft.plan.request.pids = Some(pidfd);
        }
        (pidfd, u64::from((all & !libc::CLONE_NEWPID).cast_unsigned()))
    }

    /// The mappings of a mount that names none.
    pub(super) fn idmap(&self) -> Option<Idmap> {
        if let Some(mappings) = &self.mappings {
            return Some(Idmap::Mappings(mappings.clone()));
        }
        let users = self.joined.iter().find(|joined| joined.kind == libc::CLONE_NEWUSER)?;
        Some(Idmap::Namespace(users.path.clone()))
    }

    /// The interfaces that move into the container's network namespace.
    pub(super) fn moves(&self, linux: &Linux) -> Result<Option<Moves>> {
        let joined = self.joined.iter().find(|joined| joined.kind == libc::CLONE_NEWNET);
        let moves = Moves::of(linux, joined.map(|joined| joined.path.clone()))?;
        if moves.is_some() && !self.has(libc::CLONE_NEWNET) {
            return Err(Error::invalid("linux.netDevices needs a network namespace"));
        }
        Ok(moves)
    }

    /// The host's id for a user id inside, where the spec tells.
    pub(crate) fn outside(&self, spec: &Spec, uid: u32) -> Option<u32> {
        if !self.has_users() {
            return Some(uid);
        }
        let mappings = spec.linux().as_ref().and_then(|linux| linux.uid_mappings().as_ref());
        mappings.into_iter().flatten().find_map(|map| {
            let offset = uid.checked_sub(map.container_id())?;
            if offset < map.size() { map.host_id().checked_add(offset) } else { None }
        })
    }
}

const USER: u32 = libc::CLONE_NEWUSER.cast_unsigned();

/// Plans the names of the host that the container believes to be.
pub(super) fn names(draft: &mut Draft, spec: &Spec, namespaces: &Namespaces) -> Result<()> {
    let hostname = spec.hostname().as_deref().filter(|name| !name.is_empty());
    let domainname = spec.domainname().as_deref().filter(|name| !name.is_empty());
    if (hostname.is_some() || domainname.is_some()) && !namespaces.has(libc::CLONE_NEWUTS) {
        return Err(Error::invalid("a hostname or domainname needs a uts namespace"));
    }
    if let Some(name) = hostname {
        draft.step(Step::SetHostname { name: Text::new(name)? });
    }
    if let Some(name) = domainname {
        draft.step(Step::SetDomainname { name: Text::new(name)? });
    }
    Ok(())
}

fn kind_of(kind: LinuxNamespaceType) -> i32 {
    match kind {
        LinuxNamespaceType::Mount => libc::CLONE_NEWNS,
        LinuxNamespaceType::Cgroup => libc::CLONE_NEWCGROUP,
        LinuxNamespaceType::Uts => libc::CLONE_NEWUTS,
        LinuxNamespaceType::Ipc => libc::CLONE_NEWIPC,
        LinuxNamespaceType::User => libc::CLONE_NEWUSER,
        LinuxNamespaceType::Pid => libc::CLONE_NEWPID,
        LinuxNamespaceType::Network => libc::CLONE_NEWNET,
        LinuxNamespaceType::Time => NEWTIME,
    }
}

fn map(mappings: &[LinuxIdMapping]) -> String {
    let mut map = String::new();
    for one in mappings {
        let (inside, outside, size) = (one.container_id(), one.host_id(), one.size());
        writeln!(map, "{inside} {outside} {size}").expect("a String takes everything");
    }
    map
}

/// The offsets of a new time namespace; empty for a namespace without any.
fn clock(spec: &Spec, namespaces: &Namespaces) -> Result<Option<String>> {
    let offsets = spec.linux().as_ref().and_then(|linux| linux.time_offsets().as_ref());
    let offsets = offsets.filter(|offsets| !offsets.is_empty());
    if !namespaces.is_new(NEWTIME) {
        return match offsets {
            None => Ok(None),
            Some(_) => Err(Error::invalid("time offsets need a time namespace of their own")),
        };
    }
    let mut text = String::new();
    for (clock, offset) in offsets.into_iter().flatten() {
        if clock != "monotonic" && clock != "boottime" {
            return Err(Error::invalid(format!("clock {clock:?} has no offset")));
        }
        let (seconds, nanos) = (offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
        writeln!(text, "{clock} {seconds} {nanos}").expect("a String takes everything");
    }
    Ok(Some(text))
}
