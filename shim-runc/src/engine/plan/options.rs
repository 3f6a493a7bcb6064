//! Mount options, fstab style: flags of the mount, flags of the superblock, propagation, and what
//! is left for the filesystem.

use shim_core::Result;

use crate::engine::{
    sys::{MountChange, Reach, attribute},
    wire::Text,
};

/// A mount's options, sorted by what takes them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// `bind` or `rbind`.
    pub(super) bind: Option<Reach>,
    pub(super) is_remount: bool,
    /// `tmpcopyup`: a tmpfs begins with what it covers.
    pub(super) copies_up: bool,
    /// Attributes to set on the mount alone.
    pub(super) set: u64,
    /// Attributes to clear: asked for by name.
    pub(super) clear: u64,
    /// The same for all mounts of a tree.
    pub(super) all_set: u64,
    pub(super) all_clear: u64,
    /// `idmap` or `ridmap`.
    pub(super) idmap: Option<Reach>,
    /// `MS_SHARED` and kin, one call each.
    pub(super) propagation: Vec<u64>,
    /// The filesystem's.
    pub(super) filesystem: Vec<(Text, Option<Text>)>,
}

/// The attributes that a bind mount with any flag at all takes from its options only.
const PLAIN: u64 = attribute::RDONLY
    | attribute::NOSUID
    | attribute::NODEV
    | attribute::NOEXEC
    | attribute::NOSYMFOLLOW;

enum Flag {
    Set(u64),
    Clear(u64),
    /// One of the three kinds of access times, which exclude each other.
    Time(u64),
}

impl Options {
    /// Sorts a mount's options.
    pub(super) fn parse<'a>(options: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let mut all = Self::default();
        for option in options {
            all.take(option)?;
        }
        Ok(all)
    }

    fn take(&mut self, option: &str) -> Result<()> {
        match option {
            "" | "defaults" | "loud" | "silent" => {}
            "bind" => self.bind = Some(self.bind.unwrap_or(Reach::Top)),
            "rbind" => self.bind = Some(Reach::Tree),
            "remount" => self.is_remount = true,
            "idmap" => self.idmap = Some(Reach::Top),
            "ridmap" => self.idmap = Some(Reach::Tree),
            "tmpcopyup" => self.copies_up = true,
            _ => {
                if let Some(flags) = propagation(option) {
                    self.propagation.push(flags);
                } else if let Some(flag) = flag(option) {
                    apply(&flag, &mut self.set, &mut self.clear);
                    self.keep_superblock_flag(option);
                } else if let Some(flag) = option.strip_prefix('r').and_then(flag) {
                    apply(&flag, &mut self.all_set, &mut self.all_clear);
                } else {
                    self.filesystem.push(pair(option)?);
                }
            }
        }
        Ok(())
    }

    /// `ro` and `rw` are flags of the superblock too.
    fn keep_superblock_flag(&mut self, option: &str) {
        if option == "ro" || option == "rw" {
            let key = if option == "ro" { c"ro" } else { c"rw" };
            self.filesystem.push((key.into(), None));
        }
    }

    /// The attributes of a mount that is made from scratch.
    pub(super) fn attributes(&self) -> u64 {
        self.set | self.all_set
    }

    /// What to change in a copy of mounts. As runc: options that name any flag say all of them for
    /// the topmost mount; without any it keeps what the source has.
    pub(super) fn changes(&self) -> Vec<(Reach, MountChange)> {
        let mut changes = Vec::new();
        if self.set | self.clear != 0 {
            let clear = self.clear | PLAIN & !self.set | times(self.set);
            changes.push((Reach::Top, MountChange { set: self.set, clear, ..Default::default() }));
        }
        if self.all_set | self.all_clear != 0 {
            let clear = self.all_clear | times(self.all_set);
            let change = MountChange { set: self.all_set, clear, ..Default::default() };
            changes.push((Reach::Tree, change));
        }
        changes
    }

    /// What to change in a mount that is there: nothing but what is named.
    pub(super) fn named(&self) -> MountChange {
        let clear = self.clear | times(self.set);
        MountChange { set: self.set, clear, ..Default::default() }
    }

    /// The options of a filesystem as one text, as mount(2) takes them.
    pub(super) fn joined(&self) -> Result<Text> {
        let flags = [c"ro", c"rw"].map(Text::from);
        let mut all = String::new();
        for (key, value) in self.filesystem.iter().filter(|(key, _)| !flags.contains(key)) {
            if !all.is_empty() {
                all.push(',');
            }
            all.push_str(&key.to_string());
            if let Some(value) = value {
                // A label may have commas; no other option is taken with quotes.
                let quote = if *key == Text::from(c"context") { "\"" } else { "" };
                all.push_str(&format!("={quote}{value}{quote}"));
            }
        }
        Text::new(all)
    }

    /// The attributes as mount(2) has them.
    pub(super) fn flags(&self) -> u64 {
        const FLAGS: [(u64, u64); 8] = [
            (attribute::RDONLY, libc::MS_RDONLY),
            (attribute::NOSUID, libc::MS_NOSUID),
            (attribute::NODEV, libc::MS_NODEV),
            (attribute::NOEXEC, libc::MS_NOEXEC),
            (attribute::NOATIME, libc::MS_NOATIME),
            (attribute::STRICTATIME, libc::MS_STRICTATIME),
            (attribute::NODIRATIME, libc::MS_NODIRATIME),
            (attribute::NOSYMFOLLOW, 0x100),
        ];
        let set = self.attributes();
        FLAGS.iter().filter(|(bit, _)| set & bit != 0).fold(0, |all, (_, flag)| all | flag)
    }
}

/// mount_setattr(2) wants the whole mask of access times cleared before one of them is set.
fn times(set: u64) -> u64 {
    if set & attribute::ATIME == 0 { 0 } else { attribute::ATIME }
}

fn apply(flag: &Flag, set: &mut u64, clear: &mut u64) {
    match *flag {
        Flag::Set(bit) => {
            *set |= bit;
            *clear &= !bit;
        }
        Flag::Clear(bit) => {
            *clear |= bit;
            *set &= !bit;
        }
        Flag::Time(value) => {
            *set = *set & !attribute::ATIME | value;
            *clear |= attribute::ATIME;
        }
    }
}

fn flag(option: &str) -> Option<Flag> {
    Some(match option {
        "ro" => Flag::Set(attribute::RDONLY),
        "rw" => Flag::Clear(attribute::RDONLY),
        "nosuid" => Flag::Set(attribute::NOSUID),
        "suid" => Flag::Clear(attribute::NOSUID),
        "nodev" => Flag::Set(attribute::NODEV),
        "dev" => Flag::Clear(attribute::NODEV),
        "noexec" => Flag::Set(attribute::NOEXEC),
        "exec" => Flag::Clear(attribute::NOEXEC),
        "nodiratime" => Flag::Set(attribute::NODIRATIME),
        "diratime" => Flag::Clear(attribute::NODIRATIME),
        "nosymfollow" => Flag::Set(attribute::NOSYMFOLLOW),
        "symfollow" => Flag::Clear(attribute::NOSYMFOLLOW),
        "noatime" => Flag::Time(attribute::NOATIME),
        "strictatime" => Flag::Time(attribute::STRICTATIME),
        // relatime is 0 in the mask, and what the kernel does unless told otherwise.
        "atime" | "relatime" | "norelatime" | "nostrictatime" => Flag::Time(0),
        _ => return None,
    })
}

fn propagation(option: &str) -> Option<u64> {
    let (option, recursive) = match option.strip_prefix('r') {
        Some(rest) => (rest, libc::MS_REC),
        None => (option, 0),
    };
    let flag = match option {
        "shared" => libc::MS_SHARED,
        "slave" => libc::MS_SLAVE,
        "private" => libc::MS_PRIVATE,
        "unbindable" => libc::MS_UNBINDABLE,
        _ => return None,
    };
    Some(flag | recursive)
}

fn pair(option: &str) -> Result<(Text, Option<Text>)> {
    match option.split_once('=') {
        Some((key, value)) => Ok((Text::new(key)?, Some(Text::new(value)?))),
        None => Ok((Text::new(option)?, None)),
    }
}

/// Propagation flags by the name that `rootfsPropagation` has.
pub(super) fn root_propagation(name: &str) -> Option<u64> {
    propagation(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &str) -> Options {
        Options::parse(options.split(',')).unwrap()
    }

    #[test]
    fn options_are_sorted_by_what_takes_them() {
        let tmpfs = parse("nosuid,noexec,nodev,mode=755,size=64k,swap");
        assert_eq!(tmpfs.attributes(), attribute::NOSUID | attribute::NOEXEC | attribute::NODEV);
        assert_eq!(tmpfs.joined().unwrap().to_string(), "mode=755,size=64k,swap");
        let bind = parse("rbind,rprivate,ro");
        assert_eq!(bind.bind, Some(Reach::Tree));
        assert_eq!(bind.propagation, [libc::MS_PRIVATE | libc::MS_REC]);
        assert_eq!(bind.set, attribute::RDONLY);
    }

    #[test]
    fn a_bind_without_flags_keeps_those_of_its_source() {
        assert_eq!(parse("rbind").changes(), []);
        let [(Reach::Top, change)] = parse("rbind,ro,dev").changes()[..] else { panic!() };
        assert_eq!(change.set, attribute::RDONLY);
        assert_eq!(change.clear, PLAIN & !attribute::RDONLY);
        let [(Reach::Tree, change)] = parse("rbind,rro,rexec").changes()[..] else { panic!() };
        assert_eq!((change.set, change.clear), (attribute::RDONLY, attribute::NOEXEC));
    }

    #[test]
    fn the_last_of_two_options_wins() {
        assert_eq!(parse("ro,rw").set, 0);
        assert_eq!(parse("noatime,relatime").set, 0);
        assert_eq!(parse("relatime,noatime").set, attribute::NOATIME);
        assert_eq!(parse("noatime").named().clear, attribute::ATIME);
    }
}
