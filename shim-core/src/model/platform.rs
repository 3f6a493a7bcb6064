//! What programs run on.

/// A platform by the names that container images use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// The kernel, `linux` for one.
    pub os: String,
    /// The processor, `amd64` for one.
    pub architecture: String,
    /// Which of its kinds; mostly empty.
    pub variant: String,
}

impl Platform {
    /// This program's own.
    pub fn own() -> Self {
        // The names are Go's, and the image spec's.
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", ""),
            "x86" => ("386", ""),
            "aarch64" => ("arm64", "v8"),
            "arm" => ("arm", "v7"),
            "powerpc64" if cfg!(target_endian = "little") => ("ppc64le", ""),
            other => (other, ""),
        };
        Self {
            os: std::env::consts::OS.to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.to_owned(),
        }
    }
}
