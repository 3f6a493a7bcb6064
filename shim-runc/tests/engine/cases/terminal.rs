//! Terminals.

use serde_json::json;
use shim_core::{
    Container, Streams,
    model::{ExecId, ExitStatus},
};

use super::cases;
use crate::{
    Bench,
    bundle::{Made, process, read_all, read_until},
};

const LOOK: &str = "tty; stty size; stat -c '%u %a' /dev/pts/0; echo x > /dev/console; \
    stat -c '%t' /dev/console; cut -d' ' -f5,6,7 /proc/self/stat";

cases! {
    async fn a_container_can_have_a_terminal(bench: &Bench) {
        let made = Made::script(LOOK).with(|spec| {
            spec["process"]["terminal"] = true.into();
            spec["process"]["consoleSize"] = json!({ "height": 33, "width": 111 });
            spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
        });
        let mut running = made.create_with(bench, Streams::Terminal).await.unwrap();
        let terminal = running.init.as_mut().unwrap().terminal.take().unwrap().into_master().unwrap();
        running.container.start().await.unwrap();
        let printed = read_until(&terminal, "34816");
        assert_eq!(running.wait().await, ExitStatus::Code(0));
        // The group and session are its own, and the terminal is the controlling one: 136,0.
        let expected = "/dev/pts/0\r\n33 111\r\n1000 620\r\nx\r\n88\r\n1 1 34816\r\n";
        assert_eq!(printed.trim_end(), expected.trim_end());
        running.container.delete().await.unwrap();
    }

    async fn it_passes_signals_of_keys_on(bench: &Bench) {
        let made = Made::script("trap 'echo caught; exit 5' INT; echo ready; while :; do sleep 0.01; done")
            .with(|spec| spec["process"]["terminal"] = true.into());
        let mut running = made.create_with(bench, Streams::Terminal).await.unwrap();
        let terminal = running.init.as_mut().unwrap().terminal.take().unwrap().into_master().unwrap();
        running.container.start().await.unwrap();
        read_until(&terminal, "ready");
        nix::unistd::write(&terminal, b"\x03").unwrap();
        read_until(&terminal, "caught");
        assert_eq!(running.wait().await, ExitStatus::Code(5));
        running.container.delete().await.unwrap();
    }

    async fn an_added_process_can_have_one_too(bench: &Bench) {
        let running = Made::command(&["/bin/sleep", "1000"]).create(bench).await.unwrap();
        running.container.start().await.unwrap();
        let process = process(&["/bin/sh", "-c", "tty; stty size; ls /dev/console 2>&1"]);
        let mut process: oci_spec::runtime::Process = serde_json::from_value(process).unwrap();
        let size = serde_json::from_value(json!({ "height": 10, "width": 20 })).unwrap();
        process.set_console_size(Some(size));
        let request = shim_core::Exec {
            id: ExecId::parse("e").unwrap(),
            process,
            streams: Streams::Terminal,
        };
        let mut started = running.container.exec(request).await.unwrap();
        let terminal = started.terminal.take().unwrap().into_master().unwrap();
        assert_eq!(started.exit.await.status, ExitStatus::Code(1));
        let printed = read_all(terminal);
        assert_eq!(printed, "/dev/pts/0\r\n10 20\r\nls: /dev/console: No such file or directory\r\n");
        running.end().await;
    }

    async fn without_devpts_there_is_none(bench: &Bench) {
        let made = Made::script("true").with(|spec| {
            let mounts = spec["mounts"].as_array_mut().unwrap();
            mounts.retain(|one| one["destination"] != "/dev/pts");
        });
        let err = made.create_with(bench, Streams::Terminal).await.unwrap_err();
        assert_eq!(format!("{err:#}"), "open a terminal: ENOENT: No such file or directory");
    }
}
