//! Options of the runtime, in the two shapes in which containerd passes them: runc's own message
//! (`ctr`, Docker), and a piece of TOML for runtimes under another name (CRI).

use std::{
    fs::OpenOptions,
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
};

use serde::Deserialize;
use shim_core::{
    Context, Error, Kind, Result,
    model::{RuntimeOptions, Sharing},
};
use shim_protos::{protobuf::Message, runc, runctypes, runtimeoptions};

use crate::{engine::cgroup::Driver, external::Asked};

const RUNC: &str = "containerd.runc.v1.Options";
/// What `ctr` of containerd 1.x sends to a runtime that is not named after runc.
const LEGACY: &str = "containerd.linux.runc.CreateOptions";
const GENERIC: &str = "runtimeoptions.v1.Options";

/// More than any file of options that makes sense, in bytes.
const LARGEST: u64 = 64 << 10;

/// What a client can choose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) no_pivot_root: bool,
    pub(crate) no_new_keyring: bool,
    /// The user id that the ends of pipes get.
    pub(crate) io_uid: u32,
    /// The group id that the ends of pipes get.
    pub(crate) io_gid: u32,
    /// Who makes the cgroup.
    pub(crate) driver: Driver,
    /// Saves and restores processes; empty for the one in `PATH`.
    pub(crate) criu_path: String,
    /// The checkpoint to restore, where the request names none.
    pub(crate) criu_image_path: Option<PathBuf>,
    /// Where CRIU works while it restores.
    pub(crate) criu_work_path: Option<PathBuf>,
    /// The runtime that is to make the container.
    pub(crate) external: Option<Box<Asked>>,
}

/// The TOML that CRI passes on: keys as in containerd's own configuration.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Toml {
    #[serde(alias = "no_pivot_root")]
    no_pivot_root: bool,
    #[serde(alias = "no_new_keyring")]
    no_new_keyring: bool,
    /// Joined by the framework, before there is a request.
    #[serde(alias = "shim_cgroup")]
    shim_cgroup: String,
    #[serde(alias = "io_uid")]
    io_uid: u32,
    #[serde(alias = "io_gid")]
    io_gid: u32,
    #[serde(alias = "binary_name")]
    binary_name: String,
    #[serde(alias = "systemd_cgroup")]
    systemd_cgroup: bool,
    #[serde(alias = "root")]
    root: String,
    #[serde(alias = "criu_path")]
    criu_path: String,
    #[serde(alias = "criu_image_path")]
    criu_image_path: String,
    #[serde(alias = "criu_work_path")]
    criu_work_path: String,
    /// Chosen by the framework, before there is a request.
    #[serde(alias = "grouping")]
    grouping: String,
}

impl Options {
    /// Decodes what came with a request; nothing is the defaults.
    ///
    /// # Errors
    /// `InvalidArgument` for a message that is unknown or makes no sense, `Unsupported` for what
    /// this backend does not offer.
    pub(crate) fn parse(options: Option<&RuntimeOptions>) -> Result<Self> {
        options.map_or_else(|| Ok(Self::default()), |options| Self::of(Toml::decode(options)?))
    }

    /// Decodes all that a shim was started with.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub(crate) fn parse_all(options: &[RuntimeOptions]) -> Result<Vec<Self>> {
        options.iter().map(|options| Self::parse(Some(options))).collect()
    }

    /// The cgroup that the shim is to join. What does not parse names none: the container's creation
    /// tells what is wrong with it.
    pub(crate) fn shim_cgroup(options: &RuntimeOptions) -> Option<String> {
        let cgroup = Toml::decode(options).ok()?.shim_cgroup;
        (!cgroup.is_empty()).then_some(cgroup)
    }

    /// Who shares the shim. Other options that do not parse are told by the container's creation.
    ///
    /// # Errors
    /// `InvalidArgument` for a word that is unknown.
    pub(crate) fn sharing(options: &RuntimeOptions) -> Result<Option<Sharing>> {
        Toml::decode(options).map_or(Ok(None), |options| options.sharing())
    }

    fn of(options: Toml) -> Result<Self> {
        options.sharing()?;
        // What only another runtime can do.
        let path = |path: &str| (!path.is_empty()).then(|| path.into());
        Ok(Self {
            no_pivot_root: options.no_pivot_root,
            no_new_keyring: options.no_new_keyring,
            io_uid: options.io_uid,
            io_gid: options.io_gid,
            driver: if options.systemd_cgroup { Driver::Systemd } else { Driver::Files },
            criu_path: options.criu_path.clone(),
            criu_image_path: path(&options.criu_image_path),
            criu_work_path: path(&options.criu_work_path),
            external: options.external().map(Box::new),
        })
    }
}

impl Toml {
    fn external(self) -> Option<Asked> {
        (!self.binary_name.is_empty()).then_some(Asked {
            binary_name: self.binary_name,
            root: self.root,
            systemd_cgroup: self.systemd_cgroup,
            criu_path: self.criu_path,
        })
    }

    fn sharing(&self) -> Result<Option<Sharing>> {
        let word = Some(self.grouping.as_str()).filter(|word| !word.is_empty());
        word.map(|word| word.parse().context("option Grouping")).transpose()
    }

    fn decode(options: &RuntimeOptions) -> Result<Self> {
        // A type URL may have a host in front.
        let name = options.type_url.rsplit('/').next().unwrap_or_default();
        match name {
            "" if options.value.is_empty() => Ok(Self::default()),
            RUNC => {
                let message: runc::Options = decode(RUNC, &options.value)?;
                Ok(Self {
                    no_pivot_root: message.no_pivot_root,
                    no_new_keyring: message.no_new_keyring,
                    shim_cgroup: message.shim_cgroup,
                    io_uid: message.io_uid,
                    io_gid: message.io_gid,
                    binary_name: message.binary_name,
                    root: message.root,
                    systemd_cgroup: message.systemd_cgroup,
                    criu_path: message.criu_path,
                    criu_image_path: message.criu_image_path,
                    criu_work_path: message.criu_work_path,
                    ..Self::default()
                })
            }
            LEGACY => {
                let message: runctypes::CreateOptions = decode(LEGACY, &options.value)?;
                Ok(Self {
                    no_pivot_root: message.no_pivot_root,
                    no_new_keyring: message.no_new_keyring,
                    shim_cgroup: message.shim_cgroup,
                    io_uid: message.io_uid,
                    io_gid: message.io_gid,
                    criu_image_path: message.criu_image_path,
                    ..Self::default()
                })
            }
            GENERIC => {
                let message: runtimeoptions::Options = decode(GENERIC, &options.value)?;
                let text = match (message.config_body.as_slice(), &message.config_path) {
                    // `ctr`, and CRI of 1.6, can only name a file.
                    ([], path) if !path.is_empty() => read(path)
                        .with_context(|| format!("read the runtime's options in {path}"))
                        .map_err(|err| err.with_kind(Kind::InvalidArgument))?,
                    (body, _) => body.to_vec(),
                };
                let text = std::str::from_utf8(&text)
                    .map_err(|_| Error::invalid("the runtime's options are not UTF-8"))?;
                toml::from_str(text)
                    .map_err(|err| Error::invalid(format!("parse the runtime's options: {err}")))
            }
            _ => Err(Error::invalid(format!("options of type {:?} are unknown", options.type_url))),
        }
    }
}

/// Reads a file, and waits for nobody: a fifo would hold up every container of the shim.
fn read(path: &str) -> io::Result<Vec<u8>> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let told = file.metadata()?;
    if !told.is_file() || told.len() > LARGEST {
        return Err(io::Error::other("it is no file of a sensible size"));
    }
    let mut text = Vec::new();
    file.take(LARGEST).read_to_end(&mut text)?;
    Ok(text)
}

fn decode<M: Message>(name: &str, bytes: &[u8]) -> Result<M> {
    M::parse_from_bytes(bytes).map_err(|err| Error::invalid(format!("decode {name}: {err}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(body: &str) -> Result<Options> {
        let mut message = runtimeoptions::Options::new();
        message.config_body = body.as_bytes().to_vec();
        let value = message.write_to_bytes().unwrap();
        Options::parse(Some(&RuntimeOptions { type_url: GENERIC.to_owned(), value }))
    }

    #[test]
    fn both_shapes_mean_the_same() {
        let expected = Options { no_pivot_root: true, io_uid: 7, ..Options::default() };
        let toml = "NoPivotRoot = true\nIoUid = 7\nShimCgroup = \"\"\nRoot = \"/run/x\"";
        assert_eq!(generic(toml).unwrap(), expected);
        assert_eq!(generic("no_pivot_root = true\nio_uid = 7").unwrap(), expected);
        let mut message = runc::Options::new();
        (message.no_pivot_root, message.io_uid) = (true, 7);
        let value = message.write_to_bytes().unwrap();
        let type_url = format!("types.containerd.io/{RUNC}");
        let options = Options::parse(Some(&RuntimeOptions { type_url, value })).unwrap();
        assert_eq!(options, expected);
        let mut message = runctypes::CreateOptions::new();
        (message.no_pivot_root, message.io_uid) = (true, 7);
        let (type_url, value) = (LEGACY.to_owned(), message.write_to_bytes().unwrap());
        let options = Options::parse(Some(&RuntimeOptions { type_url, value })).unwrap();
        assert_eq!(options, expected);
        assert_eq!(Options::parse(None).unwrap(), Options::default());
    }

    #[test]
    fn the_shims_cgroup_is_read_from_whatever_parses() {
        let mut message = runc::Options::new();
        (message.shim_cgroup, message.systemd_cgroup) = ("/shims".into(), true);
        let value = message.write_to_bytes().unwrap();
        let options = RuntimeOptions { type_url: RUNC.to_owned(), value };
        assert_eq!(Options::shim_cgroup(&options).as_deref(), Some("/shims"));
        let mut message = runtimeoptions::Options::new();
        for (body, expected) in [
            ("ShimCgroup = \"/a\"", Some("/a")),
            ("shim_cgroup = \"/b\"", Some("/b")),
            ("ShimCgroup = \"\"", None),
            ("ShimCgroup = 3", None),
        ] {
            message.config_body = body.as_bytes().to_vec();
            let value = message.write_to_bytes().unwrap();
            let options = RuntimeOptions { type_url: GENERIC.to_owned(), value };
            assert_eq!(Options::shim_cgroup(&options).as_deref(), expected, "{body}");
        }
    }

    fn in_file(path: &str) -> RuntimeOptions {
        let mut message = runtimeoptions::Options::new();
        path.clone_into(&mut message.config_path);
        let value = message.write_to_bytes().unwrap();
        RuntimeOptions { type_url: GENERIC.to_owned(), value }
    }

    #[test]
    fn the_grouping_is_one_of_two_words() {
        let sharing = |body: &str| {
            let mut message = runtimeoptions::Options::new();
            message.config_body = body.as_bytes().to_vec();
            let value = message.write_to_bytes().unwrap();
            Options::sharing(&RuntimeOptions { type_url: GENERIC.to_owned(), value })
        };
        for (body, expected) in [
            ("Grouping = \"namespace\"", Some(Sharing::Namespace)),
            ("grouping = \"pod\"", Some(Sharing::Pod)),
            ("Grouping = \"\"", None),
            ("NoPivotRoot = true", None),
        ] {
            assert_eq!(sharing(body).unwrap(), expected, "{body}");
            generic(body).unwrap();
        }
        let body = "Grouping = \"host\"";
        for err in [sharing(body).unwrap_err(), generic(body).unwrap_err()] {
            assert_eq!(err.kind(), Kind::InvalidArgument);
            let told = format!("{err:#}");
            assert!(told.contains("Grouping") && told.contains("\"host\""), "{told}");
        }
        assert_eq!(generic("Grouping = 3").unwrap_err().kind(), Kind::InvalidArgument);
    }

    #[test]
    fn options_may_be_in_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("options.toml");
        let options = in_file(path.to_str().unwrap());
        let err = Options::parse(Some(&options)).unwrap_err();
        assert_eq!(err.kind(), Kind::InvalidArgument);
        assert!(format!("{err:#}").contains("options.toml"), "{err:#}");
        std::fs::write(&path, "Grouping = \"namespace\"\nIoUid = 7").unwrap();
        assert_eq!(Options::parse(Some(&options)).unwrap().io_uid, 7);
        assert_eq!(Options::sharing(&options).unwrap(), Some(Sharing::Namespace));
        nix::unistd::mkfifo(&dir.path().join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        for odd in ["/dev/zero", dir.path().join("fifo").to_str().unwrap()] {
            assert!(Options::parse(Some(&in_file(odd))).is_err(), "{odd}");
        }
    }

    #[test]
    fn a_runtime_is_asked_for_in_both_shapes() {
        let asked = Asked {
            binary_name: "crun".to_owned(),
            root: "/run/x".to_owned(),
            systemd_cgroup: true,
            criu_path: "/criu".to_owned(),
        };
        let body = "BinaryName = \"crun\"\nRoot = \"/run/x\"\nSystemdCgroup = true\n\
                    CriuPath = \"/criu\"\nCriuImagePath = \"/image\"\nCriuWorkPath = \"/work\"\n\
                    TaskApiAddress = \"unix:///x\"\nTaskApiVersion = 3\n";
        let options = generic(body).unwrap();
        assert_eq!(options.external.as_deref(), Some(&asked));
        assert_eq!(options.criu_image_path.as_deref(), Some("/image".as_ref()));
        assert_eq!(options.criu_work_path.as_deref(), Some("/work".as_ref()));
        let mut message = runc::Options::new();
        (message.binary_name, message.root) = ("crun".into(), "/run/x".into());
        (message.systemd_cgroup, message.criu_path) = (true, "/criu".into());
        (message.criu_image_path, message.criu_work_path) = ("/image".into(), "/work".into());
        let (type_url, value) = (RUNC.to_owned(), message.write_to_bytes().unwrap());
        let options = Options::parse(Some(&RuntimeOptions { type_url, value })).unwrap();
        assert_eq!(options.external.as_deref(), Some(&asked));
        assert_eq!(options.criu_image_path.as_deref(), Some("/image".as_ref()));
        assert_eq!(generic("Root = \"/run/x\"").unwrap().external, None);
    }

    #[test]
    fn systemd_makes_the_cgroup_where_it_is_asked_to() {
        for (body, driver) in [
            ("SystemdCgroup = true", Driver::Systemd),
            ("systemd_cgroup = true", Driver::Systemd),
            ("SystemdCgroup = false", Driver::Files),
            ("", Driver::Files),
        ] {
            assert_eq!(generic(body).unwrap().driver, driver, "{body}");
        }
    }

    #[test]
    fn what_is_not_offered_is_refused() {
        assert_eq!(
            generic("SystemdCgroup = false\nBinaryName = \"\"").unwrap(),
            Options::default()
        );
        assert_eq!(generic("NoPivotRoot = 3").unwrap_err().kind(), Kind::InvalidArgument);
        let unknown = RuntimeOptions { type_url: "x.y.Options".to_owned(), value: vec![] };
        let err = Options::parse(Some(&unknown)).unwrap_err();
        assert_eq!(err.kind(), Kind::InvalidArgument);
        assert!(err.to_string().contains("x.y.Options"), "{err}");
    }
}
