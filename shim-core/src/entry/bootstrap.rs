//! The first exchange with containerd, in the dialect of each generation.
//!
//! | containerd | stdin of `start` | answer it takes |
//! |---|---|---|
//! | 1.6 | options, or nothing | an address |
//! | 1.7 | options, or nothing | an address, or JSON up to version 2 |
//! | 2.0 to 2.2 | options, or nothing | an address, or JSON up to version 3 |
//! | 2.3 on | `BootstrapParams` | `BootstrapResult` |
//!
//! 1.7 and 2.0 to 2.2 look alike from here, and version 2 is what both take: every generation asks
//! for the service under the version it was told, and both are served. For a sandbox they are told apart
//! by the bundle's place. There 2.x wants version 3: for less it executes the shim once more for each
//! container of the pod.

use std::path::{Path, PathBuf};

use shim_protos::{
    Any,
    bootstrap::{BootstrapParams, BootstrapResult},
    protobuf::{Message, MessageField},
    types::{RuntimeInfo, RuntimeVersion},
};

use super::flags::Flags;
use crate::{
    error::{Error, Result},
    model::{About, RuntimeOptions},
    service::convert,
};

/// What `start` was told, whichever way.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bootstrap {
    pub(super) dialect: Dialect,
    /// containerd's GRPC socket, which goes into the name of ours.
    pub(super) address: String,
    /// Where events go.
    pub(super) ttrpc_address: String,
    /// Where sockets are made; `None` for the old fixed place.
    pub(super) socket_dir: Option<String>,
    pub(super) debug: bool,
    /// The runtime's options.
    pub(super) options: Vec<RuntimeOptions>,
}

/// How the answer has to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    Address,
    /// With this version.
    Json(u32),
    Protobuf,
}

/// What tells the generations apart beside stdin.
#[derive(Debug, Default)]
pub(super) struct Environment {
    pub(super) ttrpc_address: Option<String>,
    /// Set by 1.7 and later.
    pub(super) max_shim_version: Option<String>,
    /// Where the shim is started.
    pub(super) bundle: PathBuf,
}

/// The plugin of containerd 2.x below whose directory the bundles of sandboxes are.
const SANDBOXES: &str = "io.containerd.sandbox.controller.v1.shim";

impl Bootstrap {
    /// Tells the dialect by what containerd sent.
    ///
    /// Runtime options are an `Any{type_url = 1, value = 2}` and parse as `BootstrapParams` too, so
    /// those count only when they name the very container and namespace of the flags.
    pub(super) fn parse(stdin: &[u8], flags: &Flags, env: Environment) -> Self {
        if let Some(params) = params(stdin, flags) {
            return Self::from_params(params, flags, env);
        }
        let dialect = match env.max_shim_version {
            None => Dialect::Address,
            Some(_) if is_of_sandboxes(&env.bundle) => Dialect::Json(3),
            Some(_) => Dialect::Json(2),
        };
        Self {
            dialect,
            address: flags.address.clone(),
            ttrpc_address: env.ttrpc_address.unwrap_or_else(|| format!("{}.ttrpc", flags.address)),
            socket_dir: None,
            debug: flags.debug,
            options: options_of(stdin).into_iter().collect(),
        }
    }

    fn from_params(params: BootstrapParams, flags: &Flags, env: Environment) -> Self {
        let address =
            non_empty(params.containerd_grpc_address).unwrap_or_else(|| flags.address.clone());
        let ttrpc_address = non_empty(params.containerd_ttrpc_address)
            .or(env.ttrpc_address)
            .unwrap_or_else(|| format!("{address}.ttrpc"));
        Self {
            dialect: Dialect::Protobuf,
            address,
            ttrpc_address,
            socket_dir: params.socket_dir.and_then(non_empty),
            // Levels are an open scale: debug is -4, and what lies below is more of it.
            debug: flags.debug || params.log_level.value() <= -4,
            options: params.extensions.iter().filter_map(|each| options(&each.value)).collect(),
        }
    }
}

/// Whether it is the bundle of a sandbox of containerd 2.x: 1.7 has those among its tasks'.
fn is_of_sandboxes(bundle: &Path) -> bool {
    bundle.components().any(|part| part.as_os_str() == SANDBOXES)
}

fn params(stdin: &[u8], flags: &Flags) -> Option<BootstrapParams> {
    let params = BootstrapParams::parse_from_bytes(stdin).ok()?;
    (!params.instance_id.is_empty()
        && params.instance_id == flags.id
        && params.namespace == flags.namespace)
        .then_some(params)
}

/// The runtime's options, where stdin holds nothing else: that of `start` up to 2.2, that of `-info`.
pub(super) fn options_of(stdin: &[u8]) -> Option<RuntimeOptions> {
    Any::parse_from_bytes(stdin).ok().as_ref().and_then(options)
}

fn options(any: &Any) -> Option<RuntimeOptions> {
    convert::options(Some(any))
}

fn non_empty(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

impl Dialect {
    /// Writes the address of the serving process.
    ///
    /// # Errors
    /// None that a valid address can cause.
    pub(super) fn answer(self, address: &str) -> Result<Vec<u8>> {
        match self {
            Self::Address => Ok(address.as_bytes().to_vec()),
            Self::Json(version) => serde_json::to_vec(&serde_json::json!({
                "version": version,
                "address": address,
                "protocol": "ttrpc",
            }))
            .map_err(Error::from),
            Self::Protobuf => encode(&BootstrapResult {
                version: 3,
                address: address.to_owned(),
                protocol: "ttrpc".to_owned(),
                ..Default::default()
            }),
        }
    }
}

/// The annotation that keeps containerd, from 2.2 on, from making these mounts itself
/// (docs/mounts.md there).
const ALLOW_MOUNTS: &str = "containerd.io/runtime-allow-mounts";

/// The answer to `-info`. `mounts` are the types that are taken as they are, with commas between.
///
/// # Errors
/// None that a backend can cause.
pub(super) fn runtime_info(about: &About, mounts: Option<&str>) -> Result<Vec<u8>> {
    let features = about.features.as_ref().map(|features| Any {
        type_url: "types.containerd.io/opencontainers/runtime-spec/1/features/Features".to_owned(),
        value: features.clone().into_bytes(),
        ..Default::default()
    });
    encode(&RuntimeInfo {
        name: about.name.to_owned(),
        version: MessageField::some(RuntimeVersion {
            version: about.version.to_owned(),
            ..Default::default()
        }),
        features: features.into(),
        annotations: mounts
            .map(|mounts| (ALLOW_MOUNTS.into(), mounts.into()))
            .into_iter()
            .collect(),
        ..Default::default()
    })
}

fn encode(message: &impl Message) -> Result<Vec<u8>> {
    message.write_to_bytes().map_err(|err| Error::other(format!("encode the answer: {err}")))
}

#[cfg(test)]
mod tests {
    use shim_protos::bootstrap::Extension;

    use super::*;

    /// What containerd 2.3 sends with debug logs, in a short form: instance "t1", namespace
    /// "default", level -4, both sockets, and a socket directory.
    fn sent() -> Vec<u8> {
        let mut params = BootstrapParams::new();
        params.instance_id = "t1".into();
        params.namespace = "default".into();
        params.log_level = shim_protos::protobuf::EnumOrUnknown::from_i32(-4);
        params.containerd_ttrpc_address = "/run/c.sock.ttrpc".into();
        params.containerd_grpc_address = "/run/c.sock".into();
        params.socket_dir = Some("/run/c/s".into());
        params.write_to_bytes().unwrap()
    }

    fn flags(id: &str) -> Flags {
        Flags {
            id: id.into(),
            namespace: "default".into(),
            address: "/flag.sock".into(),
            ..Flags::default()
        }
    }

    fn env(max: Option<&str>) -> Environment {
        Environment {
            ttrpc_address: Some("/env.ttrpc".into()),
            max_shim_version: max.map(Into::into),
            bundle: "/run/containerd/io.containerd.runtime.v2.task/default/t1".into(),
        }
    }

    #[test]
    fn params_that_name_the_container_are_believed() {
        let told = Bootstrap::parse(&sent(), &flags("t1"), env(Some("2")));
        assert_eq!(told.dialect, Dialect::Protobuf);
        assert_eq!(told.ttrpc_address, "/run/c.sock.ttrpc");
        assert_eq!(told.socket_dir.as_deref(), Some("/run/c/s"));
        assert!(told.debug);
    }

    #[test]
    fn params_of_another_container_are_options() {
        let told = Bootstrap::parse(&sent(), &flags("t2"), env(Some("2")));
        assert_eq!(told.dialect, Dialect::Json(2));
        assert_eq!(told.address, "/flag.sock");
        assert_eq!(told.ttrpc_address, "/env.ttrpc");
    }

    #[test]
    fn the_oldest_containerd_gets_a_bare_address() {
        let told = Bootstrap::parse(b"", &flags("t1"), env(None));
        assert_eq!(told.dialect, Dialect::Address);
        assert_eq!(told.dialect.answer("unix:///s").unwrap(), b"unix:///s");
    }

    #[test]
    fn options_come_by_themselves_or_among_extensions() {
        let any = Any { type_url: "x.Options".into(), value: b"v".to_vec(), ..Any::default() };
        let alone = any.write_to_bytes().unwrap();
        let mut params = BootstrapParams::parse_from_bytes(&sent()).unwrap();
        let extension = Extension { value: MessageField::some(any), ..Extension::default() };
        params.extensions = vec![Extension::default(), extension];
        let among = params.write_to_bytes().unwrap();
        let expected = RuntimeOptions { type_url: "x.Options".into(), value: b"v".to_vec() };
        for stdin in [alone, among] {
            let told = Bootstrap::parse(&stdin, &flags("t1"), env(None));
            assert_eq!(told.options, std::slice::from_ref(&expected));
        }
        assert_eq!(Bootstrap::parse(b"", &flags("t1"), env(None)).options, []);
    }

    #[test]
    fn a_sandbox_of_containerd_2_gets_version_3() {
        let sandbox = "/run/containerd/io.containerd.sandbox.controller.v1.shim/k8s.io/t1";
        let task = "/run/containerd/io.containerd.runtime.v2.task/k8s.io/t1";
        let alike = "/run/io.containerd.sandbox.controller.v1.shim2/t1";
        let rows: [(&str, &[u8], Option<&str>, Dialect); 6] = [
            (sandbox, b"", Some("2"), Dialect::Json(3)),
            (task, b"", Some("2"), Dialect::Json(2)),
            (alike, b"", Some("2"), Dialect::Json(2)),
            (sandbox, &sent(), Some("2"), Dialect::Protobuf),
            (task, &sent(), Some("2"), Dialect::Protobuf),
            (sandbox, b"", None, Dialect::Address),
        ];
        for (bundle, stdin, max, dialect) in rows {
            let env = Environment { bundle: bundle.into(), ..env(max) };
            let told = Bootstrap::parse(stdin, &flags("t1"), env);
            assert_eq!(told.dialect, dialect, "{bundle} {max:?}");
        }
    }

    #[test]
    fn garbage_is_not_params() {
        let told = Bootstrap::parse(&[0xff; 100], &flags("t1"), env(Some("2")));
        assert_eq!(told.dialect, Dialect::Json(2));
    }

    #[test]
    fn the_mounts_that_are_taken_are_announced() {
        let about = About { name: "x", version: "1", features: None };
        let annotations = |mounts| {
            let info = runtime_info(&about, mounts).unwrap();
            RuntimeInfo::parse_from_bytes(&info).unwrap().annotations
        };
        let told = annotations(Some("erofs,format/*"));
        assert_eq!(told["containerd.io/runtime-allow-mounts"], "erofs,format/*");
        assert!(annotations(None).is_empty());
    }

    #[test]
    fn each_dialect_has_its_answer() {
        for version in [2, 3] {
            let json = Dialect::Json(version).answer("unix:///s").unwrap();
            let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
            assert_eq!(
                (&json["version"], &json["address"]),
                (&version.into(), &"unix:///s".into())
            );
        }
        let bytes = Dialect::Protobuf.answer("unix:///s").unwrap();
        let result = BootstrapResult::parse_from_bytes(&bytes).unwrap();
        assert_eq!((result.version, result.protocol.as_str()), (3, "ttrpc"));
    }
}
