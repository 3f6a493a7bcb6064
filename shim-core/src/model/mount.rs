//! A mount as containerd hands it over.

/// One mount of a root filesystem, fstab style.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mount {
    /// The filesystem's type, or `bind`/`rbind`, or empty where the options say it.
    pub kind: String,
    /// What is mounted.
    pub source: String,
    /// Where, relative to the root filesystem; empty is the root itself.
    pub target: String,
    /// Flags, propagation and the filesystem's own options.
    pub options: Vec<String>,
}
