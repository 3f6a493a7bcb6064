//! A sandbox that does not do as it should.

use super::*;

#[tokio::test]
async fn a_create_that_fails_leaves_a_shim_that_can_be_shut_down() {
    let stage = Sandboxed::new();
    set(&stage.machine.refuses_create);
    let (_, told) = refused(stage.create().await);
    assert_eq!(told, "create sandbox p1: no machine");
    assert_eq!(refused(stage.stop().await).0, Code::NOT_FOUND);
    stage.shut_down().await.unwrap();
    assert!(stage.ends().await);
    assert_eq!(stage.machine.asked(), "create");
}

#[tokio::test]
async fn a_shutdown_without_a_sandbox_leaves_containers_alone() {
    let stage = Sandboxed::new();
    stage.create_container().await;
    stage.shut_down().await.unwrap();
    assert!(!stage.ends().await);
}

#[tokio::test]
async fn a_start_that_fails_is_an_end_and_leaves_only_the_shutdown() {
    let stage = Sandboxed::created().await;
    set(&stage.machine.refuses_start);
    let (_, told) = refused(stage.start().await);
    assert_eq!(told, "start sandbox p1: kernel panic");
    assert_eq!(stage.status().await.state, "SANDBOX_NOTREADY");
    assert_eq!(stage.wait().await.unwrap().exit_status, 255);
    assert_eq!(refused(stage.start().await).0, Code::FAILED_PRECONDITION);
    stage.shut_down().await.unwrap();
    assert!(stage.ends().await);
}

#[tokio::test]
async fn a_stop_gets_through_to_a_start_and_so_does_a_question() {
    let stage = Sandboxed::created().await;
    set(&stage.machine.boots_slowly);
    let (started, ()) = tokio::join!(stage.start(), async {
        while stage.machine.asked() != "create start" {
            tokio::task::yield_now().await;
        }
        assert_eq!(stage.status().await.state, "SANDBOX_NOTREADY");
        assert_eq!(refused(stage.ping().await).0, Code::FAILED_PRECONDITION);
        stage.stop().await.unwrap();
        stage.stop().await.unwrap();
    });
    assert_eq!(refused(started).1, "start sandbox p1: stopped");
    assert_eq!(stage.status().await.state, "SANDBOX_NOTREADY");
    stage.shut_down().await.unwrap();
    assert!(stage.ends().await);
}

#[tokio::test]
async fn a_start_that_did_not_hear_its_stop_is_stopped_once_more() {
    let stage = Sandboxed::created().await;
    set(&stage.machine.boots_slowly);
    set(&stage.machine.is_deaf);
    let (_started, ()) = tokio::join!(stage.start(), async {
        while stage.machine.asked() != "create start" {
            tokio::task::yield_now().await;
        }
        let (stopped, ()) = tokio::join!(stage.stop(), async {
            while stage.machine.asked() != "create start stop" {
                tokio::task::yield_now().await;
            }
            stage.machine.booted.notify_one();
        });
        stopped.unwrap();
    });
    assert_eq!(stage.machine.asked(), "create start stop stop");
    assert_eq!(stage.wait().await.unwrap().exit_status, 137);
}

#[tokio::test]
async fn a_death_is_told_and_leaves_a_shim_that_can_be_asked() {
    let stage = Sandboxed::ready().await;
    let (ended, ()) = tokio::join!(stage.wait(), async {
        tokio::task::yield_now().await;
        stage.machine.end(ExitStatus::Signal(Signal::KILL));
    });
    assert_eq!(ended.unwrap().exit_status, 137);
    assert_eq!(stage.status().await.state, "SANDBOX_NOTREADY");
    assert_eq!(refused(stage.ping().await).0, Code::FAILED_PRECONDITION);
    stage.stop().await.unwrap();
    stage.shut_down().await.unwrap();
    assert!(stage.ends().await);
}

#[tokio::test]
async fn a_stop_that_fails_may_be_tried_again() {
    let stage = Sandboxed::ready().await;
    set(&stage.machine.refuses_stop);
    assert_eq!(refused(stage.stop().await).1, "stop sandbox p1: it is stuck");
    assert_eq!(stage.status().await.state, "SANDBOX_READY");
    stage.machine.refuses_stop.store(false, Ordering::Relaxed);
    stage.stop().await.unwrap();
    assert_eq!(stage.status().await.state, "SANDBOX_NOTREADY");
}

#[tokio::test]
async fn a_shutdown_goes_on_after_a_stop_that_fails() {
    let stage = Sandboxed::ready().await;
    set(&stage.machine.refuses_stop);
    let (ended, ()) = tokio::join!(stage.wait(), async {
        tokio::task::yield_now().await;
        stage.shut_down().await.unwrap();
    });
    assert_eq!(ended.unwrap().exit_status, 255);
    assert!(stage.ends().await);
}

#[tokio::test]
async fn a_shutdown_that_leaves_something_keeps_the_shim_for_another_try() {
    let stage = Sandboxed::ready().await;
    set(&stage.machine.refuses_delete);
    assert_eq!(refused(stage.shut_down().await).1, "delete sandbox p1: a file is left");
    assert!(!stage.ends().await);
    stage.machine.refuses_delete.store(false, Ordering::Relaxed);
    stage.shut_down().await.unwrap();
    assert!(stage.ends().await);
}

#[tokio::test]
async fn containers_that_ended_with_the_sandbox_keep_no_shim() {
    let stage = Sandboxed::ready().await;
    stage.create_container().await;
    stage.shim.backend().0.0.end(0, 9);
    stage.shut_down().await.unwrap();
    assert!(stage.ends().await);
    let late = stage.create().await;
    assert_eq!(refused(late).0, Code::UNAVAILABLE);
}
