//! A sandbox that does as it should.

use super::*;

#[tokio::test]
async fn a_life_is_create_start_stop_shutdown_and_the_shims_end() {
    let stage = Sandboxed::created().await;
    let status = stage.status().await;
    assert_eq!((status.state.as_str(), status.pid), ("SANDBOX_NOTREADY", 0));
    let started = stage.start().await.unwrap();
    assert_eq!((started.pid, started.created_at.seconds), (std::process::id(), 7));
    let status = stage.status().await;
    assert_eq!((status.state.as_str(), status.pid), ("SANDBOX_READY", started.pid));
    assert!(status.exited_at.is_none());
    assert_eq!(status.created_at, started.created_at);
    stage.ping().await.unwrap();
    stage.stop().await.unwrap();
    let status = stage.status().await;
    assert_eq!((status.state.as_str(), status.pid), ("SANDBOX_NOTREADY", started.pid));
    assert!(status.exited_at.is_some());
    assert!(!stage.ends().await);
    stage.shut_down().await.unwrap();
    assert!(stage.ends().await);
    assert_eq!(stage.machine.asked(), "create start stop stop delete");
}

#[tokio::test]
async fn details_are_for_those_who_ask_for_them() {
    let stage = Sandboxed::ready().await;
    assert_eq!(stage.status().await.info["kernel"], "6");
    let request = SandboxStatusRequest { sandbox_id: POD.into(), ..Default::default() };
    assert!(stage.sandbox.sandbox_status(limit(), &request).await.unwrap().info.is_empty());
}

#[tokio::test]
async fn the_platform_goes_by_the_names_of_images() {
    let stage = Sandboxed::created().await;
    let request = PlatformRequest { sandbox_id: POD.into(), ..Default::default() };
    let platform = stage.sandbox.platform(limit(), &request).await.unwrap().platform;
    assert_eq!(platform.os, "linux");
    assert!(!["x86_64", "aarch64"].contains(&platform.architecture.as_str()));
}

#[tokio::test]
async fn metrics_are_what_a_tasks_stats_are() {
    let stage = Sandboxed::created().await;
    let request = SandboxMetricsRequest { sandbox_id: POD.into(), ..Default::default() };
    let early = refused(stage.sandbox.sandbox_metrics(limit(), &request).await);
    assert_eq!(early.0, Code::FAILED_PRECONDITION);
    stage.start().await.unwrap();
    let metrics = stage.sandbox.sandbox_metrics(limit(), &request).await.unwrap().metrics;
    assert_eq!(
        (metrics.id.as_str(), metrics.data.type_url.as_str()),
        (POD, "io.containerd.cgroups.v2.Metrics")
    );
    assert!(metrics.timestamp.is_some());
}

#[tokio::test]
async fn every_waiter_hears_of_a_stop_also_one_who_comes_late() {
    let stage = Sandboxed::ready().await;
    let (first, second, stopped) = tokio::join!(stage.wait(), stage.wait(), async {
        tokio::task::yield_now().await;
        stage.stop().await
    });
    stopped.unwrap();
    for ended in [first, second, stage.wait().await] {
        let ended = ended.unwrap();
        assert_eq!(ended.exit_status, 137);
        assert!(ended.exited_at.is_some());
    }
}

#[tokio::test]
async fn a_stop_may_come_again_and_before_any_start() {
    let stage = Sandboxed::created().await;
    for _ in 0..3 {
        stage.stop().await.unwrap();
    }
    assert_eq!(stage.wait().await.unwrap().exit_status, 0);
    assert_eq!(refused(stage.start().await).0, Code::FAILED_PRECONDITION);
    stage.shut_down().await.unwrap();
    assert!(stage.ends().await);
}

#[tokio::test]
async fn the_task_service_knows_the_sandbox_by_its_id() {
    let stage = Sandboxed::ready().await;
    let request = ConnectRequest { id: POD.into(), ..Default::default() };
    let connected = stage.task.connect(limit(), &request).await.unwrap();
    assert_eq!(connected.task_pid, std::process::id());
    let request = PidsRequest { id: POD.into(), ..Default::default() };
    let pids = stage.task.pids(limit(), &request).await.unwrap().processes;
    assert_eq!(pids.iter().map(|process| process.pid).collect::<Vec<_>>(), [std::process::id()]);
}

#[tokio::test]
async fn a_shim_with_a_sandbox_stays_whatever_becomes_of_containers() {
    let stage = Sandboxed::created().await;
    for id in ["c1", POD] {
        let request = ShutdownRequest { id: id.into(), ..Default::default() };
        stage.task.shutdown(limit(), &request).await.unwrap();
    }
    assert!(!stage.ends().await);
    stage.status().await;
}

#[tokio::test]
async fn a_client_that_comes_back_finds_all_as_it_was() {
    let mut stage = Sandboxed::ready().await;
    let waiting = tokio::spawn({
        let client = stage.sandbox.clone();
        async move {
            let request = WaitSandboxRequest { sandbox_id: POD.into(), ..Default::default() };
            client.wait_sandbox(limit(), &request).await
        }
    });
    tokio::task::yield_now().await;
    waiting.abort();
    stage.reconnect();
    assert_eq!(stage.status().await.state, "SANDBOX_READY");
    stage.machine.end(ExitStatus::Code(3));
    assert_eq!(stage.wait().await.unwrap().exit_status, 3);
}

#[tokio::test]
async fn there_is_one_sandbox_and_no_other_by_another_name() {
    let stage = Sandboxed::ready().await;
    assert_eq!(refused(stage.create().await).0, Code::ALREADY_EXISTS);
    assert_eq!(refused(stage.start().await).0, Code::FAILED_PRECONDITION);
    let other = "p2".to_owned();
    let request = WaitSandboxRequest { sandbox_id: other.clone(), ..Default::default() };
    assert_eq!(refused(stage.sandbox.wait_sandbox(limit(), &request).await).0, Code::NOT_FOUND);
    let request = StopSandboxRequest { sandbox_id: other.clone(), ..Default::default() };
    assert_eq!(refused(stage.sandbox.stop_sandbox(limit(), &request).await).0, Code::NOT_FOUND);
    let request = ShutdownSandboxRequest { sandbox_id: other, ..Default::default() };
    let (code, told) = refused(stage.sandbox.shutdown_sandbox(limit(), &request).await);
    assert_eq!((code, told.as_str()), (Code::NOT_FOUND, "sandbox p2 does not exist"));
    assert!(!stage.ends().await);
}
