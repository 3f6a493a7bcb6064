//! Small scripts stand in for shims.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::json;

use super::*;
use crate::daemon::Limits;
use crate::shim_log::LogTo;

/// One test at a time: a process forked by another thread while a script is open for writing
/// inherits that descriptor, and until it executes, the script is "busy".
static TURN: Mutex<()> = Mutex::new(());

struct Stage {
    dir: tempfile::TempDir,
    daemon: Daemon,
    bundle: Bundle,
    _turn: MutexGuard<'static, ()>,
}

impl Stage {
    fn new(generation: Generation) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::tempdir().unwrap();
        let limits = Limits { start: Duration::from_millis(700), ..Limits::default() };
        let daemon = Daemon {
            generation,
            namespace: "ns".to_owned(),
            grpc_address: "/g".into(),
            ttrpc_address: "/t".into(),
            publish_binary: "/p".into(),
            socket_dir: Some("/s".into()),
            debug: true,
            log: LogTo::Nowhere,
            limits,
        };
        let (parent, work) = (dir.path().join("b"), dir.path().join("w"));
        let bundle = Bundle::create(&parent, "c", &work, Some(&json!({}))).unwrap();
        Self { dir, daemon, bundle, _turn: turn }
    }

    fn shim(&self, script: &str) -> ShimBinary {
        let path: PathBuf = self.dir.path().join("containerd-shim-x-v1");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        ShimBinary::resolve(path.to_str().unwrap()).unwrap()
    }

    fn start(&self, script: &str, options: Option<&Any>) -> Result<Answer> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let shim = self.shim(script);
        runtime.block_on(start(&self.daemon, &shim, &self.bundle, options))
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.bundle.path().join(name)).unwrap()
    }
}

#[test]
fn start_gets_flags_environment_and_the_bundle_as_its_directory() {
    let script = "echo \"$@\" > args; env > env; cat > stdin; echo unix:///a";
    for generation in Generation::ALL {
        let stage = Stage::new(generation);
        assert_eq!(stage.start(script, None).unwrap().address, "unix:///a");
        assert_eq!(
            stage.read("args"),
            "-namespace ns -address /g -publish-binary /p -id c -debug start\n"
        );
        let env = stage.read("env");
        assert!(env.contains("TTRPC_ADDRESS=/t\n") && env.contains("GOMAXPROCS=2\n"), "{env}");
        let since_1_7 = generation >= Generation::V1_7;
        for line in ["MAX_SHIM_VERSION=2\n", "GRPC_ADDRESS=/g\n", "NAMESPACE=ns\n"] {
            assert_eq!(env.contains(line), since_1_7, "{generation} {line}");
        }
    }
}

#[test]
fn options_go_bare_until_2_3_and_wrapped_from_then_on() {
    let options = Any { type_url: "T".to_owned(), value: vec![1], ..Any::default() };
    for generation in Generation::ALL {
        let stage = Stage::new(generation);
        stage.start("cat > stdin; echo unix:///a", Some(&options)).unwrap();
        let stdin = fs::read(stage.bundle.path().join("stdin")).unwrap();
        if generation < Generation::V2_3 {
            assert_eq!(stdin, options.write_to_bytes().unwrap());
            continue;
        }
        let params = BootstrapParams::parse_from_bytes(&stdin).unwrap();
        assert_eq!((params.instance_id.as_str(), params.namespace.as_str()), ("c", "ns"));
        assert_eq!(params.containerd_ttrpc_address, "/t");
        assert_eq!(params.containerd_grpc_address, "/g");
        assert_eq!(params.socket_dir.as_deref(), Some("/s"));
        assert_eq!(params.log_level, EnumOrUnknown::new(LogLevel::LOG_LEVEL_DEBUG));
        assert_eq!(params.extensions[0].value.as_ref(), Some(&options));
    }
}

#[test]
fn a_failing_start_is_reported_in_the_shims_own_words() {
    let stage = Stage::new(Generation::V2_3);
    let error = format!("{:#}", stage.start("echo no such runtime >&2; exit 1", None).unwrap_err());
    assert!(error.contains("no such runtime") && error.contains("exit status: 1"), "{error}");
}

#[test]
fn stderr_is_part_of_the_answer() {
    let stage = Stage::new(Generation::V1_6);
    let answer = stage.start("echo chatter >&2; echo unix:///a", None);
    assert!(format!("{:#}", answer.unwrap_err()).contains("chatter"));
}

#[test]
fn a_hanging_start_is_killed() {
    let stage = Stage::new(Generation::V1_7);
    let error = format!("{:#}", stage.start("exec sleep 60", None).unwrap_err());
    assert!(error.contains("killed"), "{error}");
}

#[test]
fn a_daemon_that_keeps_the_pipe_is_told_apart_from_a_hang() {
    let stage = Stage::new(Generation::V1_7);
    let error = format!("{:#}", stage.start("sleep 2 & echo unix:///a", None).unwrap_err());
    assert!(error.contains("still holds"), "{error}");
}
