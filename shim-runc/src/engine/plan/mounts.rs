//! The root filesystem and what is mounted in it, from the first bind to the change of root.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{Mount, Spec};
use shim_core::{Context, Error, Kind, Result, model::Bundle};

use super::{
    Choices, Draft, Facts, Idmap, Mappings, Namespaces, Source, Tree, cgroups, confine,
    in_container,
    options::{self, Options},
    path, place,
};
use crate::engine::{
    step::Step,
    sys::{MountChange, Reach, attribute},
    wire::Text,
};

/// The longest value that fsconfig(2) takes.
const VALUE: usize = 255;

/// Files of procfs that may be covered: container managers show a container's own numbers there.
const COVERABLE: [&str; 12] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/net/dev",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
    "/proc/sys/kernel/osrelease",
];

/// How a container's mounts and the host's see each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Propagation {
    /// What the spec asks for; nothing is like `rslave`.
    asked: Option<u64>,
}

impl Propagation {
    pub(super) fn of(spec: &Spec) -> Result<Self> {
        let name = spec.linux().as_ref().and_then(|linux| linux.rootfs_propagation().as_deref());
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            return Ok(Self { asked: None });
        };
        let asked = options::root_propagation(name)
            .ok_or_else(|| Error::invalid(format!("rootfsPropagation {name:?} is unknown")))?;
        Ok(Self { asked: Some(asked) })
    }

    /// What copies of the host's mounts become.
    fn of_copies(self) -> u64 {
        match self.asked.map(|asked| asked & !libc::MS_REC) {
            // A shared one has to stay the host's peer.
            Some(libc::MS_SHARED) => 0,
            // What can't be bound can't be copied either, so that comes last.
            Some(libc::MS_PRIVATE | libc::MS_UNBINDABLE) => libc::MS_PRIVATE,
            _ => libc::MS_SLAVE,
        }
    }
}

/// Plans the first mount: the root filesystem.
pub(super) fn root(
    draft: &mut Draft,
    spec: &Spec,
    bundle: &Bundle,
    propagation: Propagation,
) -> Result<()> {
    let root = spec.root().as_ref().ok_or_else(|| Error::invalid("the spec has no root"))?;
    let path = bundle.path().join(root.path());
    let copies = propagation.of_copies();
    // A shared root would show the host everything that is mounted in it.
    let private = MountChange { propagation: libc::MS_PRIVATE, ..MountChange::default() };
    let changes = if copies == 0 { vec![(Reach::Top, private)] } else { Vec::new() };
    if copies != 0 {
        draft.step(Step::Propagate { flags: copies | libc::MS_REC });
    }
    let tree = Tree {
        path: path.clone(),
        reach: Reach::Tree,
        propagation: copies,
        changes,
        is_proc: false,
        idmap: None,
    };
    let tree = draft.file(Source::Tree(tree));
    draft.step(Step::AttachRoot { tree, path: Text::new(path)? });
    Ok(())
}

/// Plans the spec's mounts in their order; true when the host's `/dev` is bound on the container's.
pub(super) fn all(
    draft: &mut Draft,
    spec: &Spec,
    bundle: &Bundle,
    namespaces: &Namespaces,
    propagation: Propagation,
    facts: &Facts,
) -> Result<bool> {
    let mut dev_is_bound = false;
    for mount in spec.mounts().iter().flatten() {
        let one = One::of(mount, bundle)?;
        dev_is_bound |= one.options.bind.is_some() && one.target == Path::new("/dev");
        let planned = one.plan(draft, namespaces, propagation, facts);
        planned.with_context(|| format!("mount on {}", mount.destination().display()))?;
    }
    Ok(dev_is_bound)
}

/// One mount of the spec.
pub(super) struct One {
    pub(super) kind: String,
    pub(super) source: PathBuf,
    pub(super) target: PathBuf,
    pub(super) options: Options,
    /// The mount's own.
    pub(super) mappings: Option<Mappings>,
}

impl One {
    fn of(mount: &Mount, bundle: &Bundle) -> Result<Self> {
        let target = path::clean(mount.destination());
        let mut options = Options::parse(mount.options().iter().flatten().map(String::as_str))
            .with_context(|| format!("mount on {}", target.display()))?;
        let kind = mount.typ().clone().unwrap_or_default();
        if kind == "bind" && options.bind.is_none() {
            options.bind = Some(Reach::Tree);
        }
        let mut source = mount.source().clone().unwrap_or_default();
        if options.bind.is_some() {
            source = bundle.path().join(source);
        }
        let mappings = mappings(mount)?;
        Ok(Self { kind, source, target, options, mappings })
    }

    fn plan(
        mut self,
        draft: &mut Draft,
        namespaces: &Namespaces,
        propagation: Propagation,
        facts: &Facts,
    ) -> Result<()> {
        if self.target == Path::new("/") && !self.options.is_remount {
            return Err(Error::invalid("the root filesystem is not a mount of the spec"));
        }
        if self.options.copies_up && self.kind != "tmpfs" {
            return Err(Error::invalid("only a tmpfs has the option tmpcopyup"));
        }
        if self.options.is_remount {
            return self.remount(draft);
        }
        if let Some(reach) = self.options.bind {
            return self.bind(draft, reach, namespaces, propagation);
        }
        if self.mappings.is_some() || self.options.idmap.is_some() {
            let why = "only bind mounts can have ids of their own";
            return Err(Error::new(Kind::Unsupported, why));
        }
        match self.kind.as_str() {
            "" => Err(Error::invalid("the mount has no type")),
            "cgroup" => cgroups::mount(draft, self, namespaces, propagation, facts),
            "cgroup2" if facts.is_unified => {
                cgroups::mount(draft, self, namespaces, propagation, facts)
            }
            _ => {
                if let Some(label) =
                    draft.label.clone().filter(|_| confine::takes_label(&self.kind))
                {
                    self.options.filesystem.push((Text::from(c"context"), Some(label)));
                }
                let sealed = self.take_read_only();
                self.filesystem(draft)?;
                if sealed { self.seal(draft) } else { Ok(()) }
            }
        }
    }

    /// A tmpfs, and whatever is `/dev`, gets files and targets later: it is read-only at the end.
    fn take_read_only(&mut self) -> bool {
        let late = self.kind == "tmpfs" || self.target == Path::new("/dev");
        if !late || self.options.set & attribute::RDONLY == 0 {
            return false;
        }
        self.options.set &= !attribute::RDONLY;
        let ro = Text::from(c"ro");
        self.options.filesystem.retain(|(key, _)| *key != ro);
        true
    }

    fn seal(&self, draft: &mut Draft) -> Result<()> {
        draft.sealed.push(in_container(&self.target)?);
        Ok(())
    }

    /// Plans a filesystem of its own.
    pub(super) fn filesystem(&self, draft: &mut Draft) -> Result<()> {
        let (kind, target) = (Text::new(&self.kind)?, in_container(&self.target)?);
        let ordinary = matches!(self.kind.as_str(), "proc" | "sysfs");
        if !ordinary && self.target == Path::new("/proc") {
            let why = format!("a filesystem of type {} can't be /proc", self.kind);
            return Err(Error::invalid(why));
        }
        let place = if ordinary { place::ORDINARY } else { self.place() };
        let propagation = self.options.propagation.clone();
        let source = Text::new(&self.source)?;
        let is_long = |value: &Text| value.as_c_str().to_bytes().len() > VALUE;
        let mut values = self.options.filesystem.iter().filter_map(|(_, value)| value.as_ref());
        if values.any(is_long) {
            if self.options.copies_up {
                return Err(Error::invalid("an option is too long for one with tmpcopyup"));
            }
            let (flags, options) = (self.options.flags(), self.options.joined()?);
            draft.step(Step::MountWhole {
                kind,
                source,
                target,
                flags,
                options,
                propagation,
                place,
            });
            return Ok(());
        }
        let mut options = Vec::new();
        if !self.source.as_os_str().is_empty() {
            options.push((Text::from(c"source"), Some(source)));
        }
        options.extend(self.options.filesystem.iter().cloned());
        let attributes = self.options.attributes();
        draft.step(Step::Mount { kind, target, options, attributes, propagation, place });
        Ok(())
    }

    /// Plans a bind mount.
    pub(super) fn bind(
        &self,
        draft: &mut Draft,
        reach: Reach,
        namespaces: &Namespaces,
        propagation: Propagation,
    ) -> Result<()> {
        if self.source.as_os_str().is_empty() {
            return Err(Error::invalid("the mount has no source"));
        }
        let tree = Tree {
            path: self.source.clone(),
            reach,
            propagation: propagation.of_copies(),
            changes: self.options.changes(),
            is_proc: self.target == Path::new("/proc"),
            idmap: self.idmap(namespaces)?,
        };
        let tree = draft.file(Source::Tree(tree));
        draft.step(Step::Bind {
            tree,
            source: Text::new(&self.source)?,
            target: in_container(&self.target)?,
            propagation: self.options.propagation.clone(),
            place: self.place(),
        });
        Ok(())
    }

    /// Whose ids the mount's files have, if others than on disk.
    fn idmap(&self, namespaces: &Namespaces) -> Result<Option<(Idmap, Reach)>> {
        let reach = self.options.idmap;
        match (&self.mappings, reach) {
            (None, None) => Ok(None),
            (Some(own), reach) => {
                Ok(Some((Idmap::Mappings(own.clone()), reach.unwrap_or(Reach::Top))))
            }
            (None, Some(reach)) => {
                let why = "an idmapped mount needs mappings or a user namespace";
                let users = namespaces.idmap().ok_or_else(|| Error::invalid(why))?;
                Ok(Some((users, reach)))
            }
        }
    }

    fn remount(&self, draft: &mut Draft) -> Result<()> {
        let change = self.options.named();
        let is_bind = self.options.bind.is_some();
        let options = if is_bind { Vec::new() } else { self.options.filesystem.clone() };
        let target = in_container(&self.target)?;
        draft.step(Step::Remount { target, options, set: change.set, clear: change.clear });
        Ok(())
    }

    fn place(&self) -> u64 {
        let is_coverable = COVERABLE.iter().any(|file| self.target == Path::new(file));
        let copy = if self.options.copies_up { place::COPY_UP } else { 0 };
        if is_coverable { place::IN_PROC | copy } else { copy }
    }
}

/// The ids that a mount of the spec has for itself.
fn mappings(mount: &Mount) -> Result<Option<Mappings>> {
    match (mount.uid_mappings().as_deref(), mount.gid_mappings().as_deref()) {
        (None | Some([]), None | Some([])) => Ok(None),
        (Some(users @ [_, ..]), Some(groups @ [_, ..])) => Ok(Some(Mappings::of(users, groups))),
        _ => Err(Error::invalid("a mount has uid mappings and gid mappings or none of both")),
    }
}

/// Plans the way from the host's root to the container's.
pub(super) fn change_root(draft: &mut Draft, choices: Choices, facts: &Facts) -> Result<()> {
    if !choices.no_pivot_root {
        draft.step(Step::PivotRoot {});
        return Ok(());
    }
    // The host's mounts stay below the container's root. A whole procfs or sysfs among them would
    // let a user namespace inside mount one of its own without the masks.
    for path in &facts.system_mounts {
        draft.step(Step::Hide { path: Text::new(path)? });
    }
    draft.step(Step::ChangeRoot {});
    Ok(())
}

/// Where procfs and sysfs are mounted whole, by the kernel's list (proc_pid_mountinfo(5)).
pub(crate) fn system_mounts(mountinfo: &str) -> Vec<PathBuf> {
    let whole = mountinfo.lines().filter_map(|line| {
        let (fields, rest) = line.split_once(" - ")?;
        let kind = rest.split(' ').next()?;
        let mut fields = fields.split(' ').skip(3);
        let (root, target) = (fields.next()?, fields.next()?);
        let is_whole = root == "/" && matches!(kind, "proc" | "sysfs");
        is_whole.then(|| PathBuf::from(target))
    });
    whole.collect()
}

/// Plans what has to wait until everything else is in its place.
pub(super) fn finish(draft: &mut Draft, spec: &Spec, propagation: Propagation) -> Result<()> {
    for path in std::mem::take(&mut draft.sealed) {
        draft.step(Step::Seal { path });
    }
    if let Some(flags) = propagation.asked {
        draft.step(Step::PropagateRoot { flags });
    }
    if spec.root().as_ref().and_then(oci_spec::runtime::Root::readonly) == Some(true) {
        draft.step(Step::SealRoot {});
    }
    Ok(())
}
