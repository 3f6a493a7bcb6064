//! System calls that an agent answers.

use serde_json::{Value, json};
use shim_core::{Container, model::ExitStatus};

use super::cases;
use crate::{
    Bench,
    agent::Agent,
    bundle::{Made, read_all},
};

fn profile(agent: &std::path::Path, call: &str) -> Value {
    json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "listenerPath": agent,
        "listenerMetadata": "tell me more",
        "syscalls": [{ "names": [call, format!("{call}at")], "action": "SCMP_ACT_NOTIFY" }],
    })
}

cases! {
    async fn an_agent_answers_for_the_kernel(bench: &Bench) {
        for no_new_privileges in [true, false] {
            let made = Made::script("mkdir /tmp/x 2>&1; mkdir /tmp/x && read line");
            let socket = made.dir.path().join("agent");
            let made = made.with(|spec| {
                spec["annotations"] = json!({ "mine": "yes" });
                spec["process"]["noNewPrivileges"] = no_new_privileges.into();
                spec["linux"]["seccomp"] = profile(&socket, "mkdir");
            });
            let agent = Agent::listen(&socket, 1, 28);
            let mut running = made.create(bench).await.unwrap();
            let pid = running.init.as_ref().unwrap().pid.get();
            let told = agent.told();
            let state = json!({ "ociVersion": made.spec["ociVersion"], "id": made.id.as_str(),
                "status": "creating", "pid": pid, "bundle": made.dir.path(),
                "annotations": { "mine": "yes" } });
            assert_eq!(told, json!({ "ociVersion": "1.3.0", "fds": ["seccompFd"], "pid": pid,
                "metadata": "tell me more", "state": state }));
            running.container.start().await.unwrap();
            // With the agent gone, the kernel has nobody to ask.
            agent.join();
            running.wait().await;
            let printed = running.printed();
            let first = "mkdir: can't create directory '/tmp/x': No space left on device\n";
            assert!(printed.starts_with(first), "{printed}");
            running.container.delete().await.unwrap();
        }
    }

    async fn an_agent_hears_of_added_processes(bench: &Bench) {
        let made = Made::script("mkdir /tmp/x; exec sleep 1000");
        let socket = made.dir.path().join("agent");
        let made = made.with(|spec| spec["linux"]["seccomp"] = profile(&socket, "mkdir"));
        let agent = Agent::listen(&socket, 2, 28);
        let running = made.create(bench).await.unwrap();
        let init = agent.told()["pid"].clone();
        running.container.start().await.unwrap();
        let (process, output) = running.exec("e", &["/bin/mkdir", "/tmp/y"]).await.unwrap();
        let told = agent.told();
        assert_eq!(told["pid"], process.pid.get());
        assert_eq!((&told["state"]["pid"], &told["state"]["status"]), (&init, &"running".into()));
        assert_eq!(process.exit.await.status, ExitStatus::Code(1));
        assert_eq!(read_all(output), "mkdir: can't create directory '/tmp/y': No space left on device\n");
        agent.join();
        running.end().await;
    }

    async fn a_container_whose_agent_is_away_is_not_made(bench: &Bench) {
        let made = Made::script("true");
        let socket = made.dir.path().join("agent");
        let made = made.with(|spec| spec["linux"]["seccomp"] = profile(&socket, "mkdir"));
        let refused = made.refusal(bench).await;
        let place = format!("tell the seccomp agent at {}", socket.display());
        assert!(refused.contains(&place) && refused.contains("No such file"), "{refused}");
    }

    async fn a_filter_may_not_ask_about_what_tells_of_it(bench: &Bench) {
        for (call, word) in [("write", "write"), ("mkdir", "listenerPath")] {
            let made = Made::script("true").with(|spec| {
                let agent = if call == "write" { "/run/agent" } else { "" };
                spec["linux"]["seccomp"] = profile(agent.as_ref(), call);
            });
            let refused = made.refusal(bench).await;
            assert!(refused.contains(word), "{refused}");
        }
    }
}
