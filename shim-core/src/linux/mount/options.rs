//! Mount options, fstab style: flags, propagation, and what is left for the filesystem.

use nix::mount::MsFlags;

use super::image::Caching;
use crate::error::{Error, Result};

/// mount(8)'s option for images, and containerd's for how they are read.
const LOOP: &str = "loop";
const DIRECT: &str = "direct-io";

/// Flags that a bind mount takes in a second call only.
pub(super) const PER_MOUNT: MsFlags = MsFlags::MS_RDONLY
    .union(MsFlags::MS_NOSUID)
    .union(MsFlags::MS_NODEV)
    .union(MsFlags::MS_NOEXEC)
    .union(MsFlags::MS_NOATIME)
    .union(MsFlags::MS_NODIRATIME)
    .union(MsFlags::MS_RELATIME);

/// What a mount's options come to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) flags: MsFlags,
    pub(super) propagation: Option<MsFlags>,
    pub(super) data: String,
    /// How to read the source where that is an image, to be mounted by way of a loop device.
    pub(super) image: Option<Caching>,
}

impl Options {
    /// Sorts the options.
    ///
    /// # Errors
    /// `InvalidArgument` for containerd's own options, which it should have acted on itself.
    pub(super) fn parse(options: &[String]) -> Result<Self> {
        let mut parsed =
            Self { flags: MsFlags::empty(), propagation: None, data: String::new(), image: None };
        let is_given = |name| options.iter().any(|option| split(option).contains(&name));
        let caching = if is_given(DIRECT) { Caching::Direct } else { Caching::Cached };
        parsed.image = is_given(LOOP).then_some(caching);
        for option in options.iter().flat_map(|option| split(option)) {
            if option.starts_with("X-containerd.") {
                return Err(Error::invalid(format!("mount option {option:?} is not for a shim")));
            }
            if parsed.image.is_some() && [LOOP, DIRECT].contains(&option) {
                continue;
            }
            match flag(option) {
                Some(Flag::Set(flag)) => parsed.flags |= flag,
                Some(Flag::Clear(flag)) => parsed.flags &= !flag,
                Some(Flag::Propagate(flag)) => parsed.propagation = Some(flag),
                None => parsed.add_data(option),
            }
        }
        Ok(parsed)
    }

    fn add_data(&mut self, option: &str) {
        if option.is_empty() {
            return;
        }
        if !self.data.is_empty() {
            self.data.push(',');
        }
        self.data.push_str(option);
    }
}

/// An option may be several, with commas; one of an overlay's may have commas of its own, escaped.
fn split(option: &str) -> Vec<&str> {
    if option.contains('=') { vec![option] } else { option.split(',').collect() }
}

enum Flag {
    Set(MsFlags),
    Clear(MsFlags),
    Propagate(MsFlags),
}

fn flag(option: &str) -> Option<Flag> {
    use Flag::{Clear, Propagate, Set};
    Some(match option {
        "bind" => Set(MsFlags::MS_BIND),
        "rbind" => Set(MsFlags::MS_BIND | MsFlags::MS_REC),
        "ro" => Set(MsFlags::MS_RDONLY),
        "rw" => Clear(MsFlags::MS_RDONLY),
        "nosuid" => Set(MsFlags::MS_NOSUID),
        "suid" => Clear(MsFlags::MS_NOSUID),
        "nodev" => Set(MsFlags::MS_NODEV),
        "dev" => Clear(MsFlags::MS_NODEV),
        "noexec" => Set(MsFlags::MS_NOEXEC),
        "exec" => Clear(MsFlags::MS_NOEXEC),
        "sync" => Set(MsFlags::MS_SYNCHRONOUS),
        "async" => Clear(MsFlags::MS_SYNCHRONOUS),
        "dirsync" => Set(MsFlags::MS_DIRSYNC),
        "remount" => Set(MsFlags::MS_REMOUNT),
        "mand" => Set(MsFlags::MS_MANDLOCK),
        "nomand" => Clear(MsFlags::MS_MANDLOCK),
        "noatime" => Set(MsFlags::MS_NOATIME),
        "atime" => Clear(MsFlags::MS_NOATIME),
        "nodiratime" => Set(MsFlags::MS_NODIRATIME),
        "diratime" => Clear(MsFlags::MS_NODIRATIME),
        "relatime" => Set(MsFlags::MS_RELATIME),
        "norelatime" => Clear(MsFlags::MS_RELATIME),
        "strictatime" => Set(MsFlags::MS_STRICTATIME),
        "nostrictatime" => Clear(MsFlags::MS_STRICTATIME),
        "defaults" => Set(MsFlags::empty()),
        "shared" => Propagate(MsFlags::MS_SHARED),
        "rshared" => Propagate(MsFlags::MS_SHARED | MsFlags::MS_REC),
        "slave" => Propagate(MsFlags::MS_SLAVE),
        "rslave" => Propagate(MsFlags::MS_SLAVE | MsFlags::MS_REC),
        "private" => Propagate(MsFlags::MS_PRIVATE),
        "rprivate" => Propagate(MsFlags::MS_PRIVATE | MsFlags::MS_REC),
        "unbindable" => Propagate(MsFlags::MS_UNBINDABLE),
        "runbindable" => Propagate(MsFlags::MS_UNBINDABLE | MsFlags::MS_REC),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[&str]) -> Options {
        let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
        Options::parse(&options).unwrap()
    }

    #[test]
    fn flags_propagation_and_data_are_told_apart() {
        let parsed = parse(&["rbind", "ro", "rslave", "size=1m", "mode=755"]);
        assert_eq!(parsed.flags, MsFlags::MS_BIND | MsFlags::MS_REC | MsFlags::MS_RDONLY);
        assert_eq!(parsed.propagation, Some(MsFlags::MS_SLAVE | MsFlags::MS_REC));
        assert_eq!(parsed.data, "size=1m,mode=755");
    }

    #[test]
    fn a_later_option_wins() {
        assert_eq!(parse(&["ro", "rw"]).flags, MsFlags::empty());
        assert_eq!(parse(&["nosuid,nodev"]).flags, MsFlags::MS_NOSUID | MsFlags::MS_NODEV);
    }

    #[test]
    fn an_image_is_no_matter_of_the_filesystem() {
        let parsed = parse(&["ro,loop", "direct-io", "dax"]);
        assert_eq!((parsed.image, parsed.data.as_str()), (Some(Caching::Direct), "dax"));
        assert_eq!(parsed.flags, MsFlags::MS_RDONLY);
        assert_eq!(parse(&["loop"]).image, Some(Caching::Cached));
        assert_eq!(parse(&["direct-io"]).data, "direct-io");
        assert_eq!(parse(&["lowerdir=/loop"]).image, None);
    }

    #[test]
    fn containerds_own_options_are_refused() {
        let err = Options::parse(&["X-containerd.mkfs=1".to_owned()]).unwrap_err();
        assert_eq!(err.kind(), crate::Kind::InvalidArgument);
        assert!(err.to_string().contains("X-containerd.mkfs=1"), "{err}");
    }
}
