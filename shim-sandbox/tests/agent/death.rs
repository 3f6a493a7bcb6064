//! The end of an agent while its containers run.

use std::time::Duration;

use nix::sys::signal::{Signal as Kill, kill};
use shim_core::{Container, Kind, Target, model::Signal};
use tokio::time::timeout;

use crate::world::{World, block_on, exec, run};
use shim_sandbox::host::agent::Health;

/// What "at once" means on a machine with other things to do.
const AT_ONCE: Duration = Duration::from_secs(2);

#[test]
fn with_its_guest_every_process_ends_at_once() {
    run(async |world| {
        let mut one = world.start("echo ready; sleep 1000").await;
        let mut other = world.start("echo ready; cat").await;
        one.line().await;
        other.line().await;
        let (process, _output) = exec(&one.container, "e1", "sleep 1000").await.unwrap();
        let unstarted = world.create(world.script("true")).await;
        world.kill();
        let ends = async {
            (one.exit().await, other.exit().await, process.exit.await, unstarted.init.exit.await)
        };
        let ends = timeout(AT_ONCE, ends).await.expect("they end");
        for exit in [ends.0, ends.1, ends.2, ends.3] {
            assert_eq!(exit.status.wire(), 137);
        }
        assert!(world.agent.is_dead());
        let killed = one.container.kill(Target::Init, Signal::KILL).await;
        assert_eq!(killed.unwrap_err().kind(), Kind::NotFound);
        let late = exec(&one.container, "e2", "true").await.err().unwrap();
        assert_eq!(late.kind(), Kind::Unavailable);
        assert!(late.to_string().contains("the guest is gone"), "{late:#}");
        for container in [&one.container, &other.container, &unstarted.container] {
            container.delete().await.unwrap();
        }
    });
}

#[test]
fn an_agent_that_stands_still_is_taken_for_dead() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    block_on(async {
        let health = Health { every: Duration::from_millis(100), misses: 3 };
        let world = World::new(health).await;
        let mut running = world.start("echo ready; sleep 1000").await;
        running.line().await;
        let pid = nix::unistd::Pid::from_raw(world.pid().raw());
        kill(pid, Kill::SIGSTOP).unwrap();
        let why = timeout(Duration::from_secs(10), world.agent.dead()).await.expect("it is told");
        assert!(why.contains("3 questions"), "{why}");
        assert_eq!(running.exit().await.status.wire(), 137);
        kill(pid, Kill::SIGCONT).unwrap();
        world.end().await;
    });
}

#[test]
fn an_agent_that_is_powered_off_ends() {
    run(async |world| {
        world.agent.power_off().await.unwrap();
        assert!(world.agent.is_dead());
        assert_eq!(world.agent.power_off().await.unwrap_err().kind(), Kind::Unavailable);
    });
}
