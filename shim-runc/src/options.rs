//! Options of the runtime, in the two shapes in which containerd passes them: runc's own message
//! (`ctr`, Docker), and a piece of TOML for runtimes under another name (CRI).

use serde::Deserialize;
use shim_core::{Error, Kind, Result, model::RuntimeOptions};
use shim_protos::{protobuf::Message, runc, runctypes, runtimeoptions};

const RUNC: &str = "containerd.runc.v1.Options";
/// What `ctr` of containerd 1.x sends to a runtime that is not named after runc.
const LEGACY: &str = "containerd.linux.runc.CreateOptions";
const GENERIC: &str = "runtimeoptions.v1.Options";

/// What a client can choose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) no_pivot_root: bool,
    pub(crate) no_new_keyring: bool,
    /// The user id that the ends of pipes get.
    pub(crate) io_uid: u32,
    /// The group id that the ends of pipes get.
    pub(crate) io_gid: u32,
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
    #[serde(alias = "criu_image_path")]
    criu_image_path: String,
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

    /// The cgroup that the shim is to join. What does not parse names none: the container's creation
    /// tells what is wrong with it.
    pub(crate) fn shim_cgroup(options: &RuntimeOptions) -> Option<String> {
        let cgroup = Toml::decode(options).ok()?.shim_cgroup;
        (!cgroup.is_empty()).then_some(cgroup)
    }

    fn of(options: Toml) -> Result<Self> {
        let refused = [
            (options.systemd_cgroup, "SystemdCgroup: cgroups are made without systemd"),
            (!options.binary_name.is_empty(), "BinaryName: containers are made without a runtime"),
            (!options.criu_image_path.is_empty(), "CriuImagePath: checkpoints can't be restored"),
        ];
        if let Some((_, what)) = refused.iter().find(|(is_set, _)| *is_set) {
            return Err(Error::new(Kind::Unsupported, format!("option {what}")));
        }
        let Toml { no_pivot_root, no_new_keyring, io_uid, io_gid, .. } = options;
        Ok(Self { no_pivot_root, no_new_keyring, io_uid, io_gid })
    }
}

impl Toml {
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
                    systemd_cgroup: message.systemd_cgroup,
                    criu_image_path: message.criu_image_path,
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
                let text = std::str::from_utf8(&message.config_body)
                    .map_err(|_| Error::invalid("the runtime's options are not UTF-8"))?;
                toml::from_str(text)
                    .map_err(|err| Error::invalid(format!("parse the runtime's options: {err}")))
            }
            _ => Err(Error::invalid(format!("options of type {:?} are unknown", options.type_url))),
        }
    }
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

    #[test]
    fn what_is_not_offered_is_refused() {
        for body in ["SystemdCgroup = true", "BinaryName = \"/usr/bin/crun\""] {
            assert_eq!(generic(body).unwrap_err().kind(), Kind::Unsupported, "{body}");
        }
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
