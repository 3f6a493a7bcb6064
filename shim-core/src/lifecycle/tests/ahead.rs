//! What is prepared before a container is asked for is used or removed, once.

use super::*;

fn coming(stage: &Stage) -> Coming {
    Coming { id: id(), bundle: stage.bundle.clone(), options: Vec::new() }
}

async fn prepared(script: Script) -> Stage {
    let stage = Stage::new(script);
    stage.shim.announce(id()).unwrap();
    stage.shim.prepare(coming(&stage)).await;
    stage
}

fn asked(stage: &Stage) -> String {
    stage.script.asked.lock().unwrap().join(" ")
}

#[tokio::test]
async fn a_create_takes_what_is_prepared() {
    let stage = prepared(Script::default()).await;
    stage.create().await.unwrap();
    stage.shim.close().await;
    assert_eq!(asked(&stage), "prepare create");
}

#[tokio::test]
async fn a_create_waits_until_all_is_prepared() {
    let go = Arc::new(Notify::new());
    let stage = Stage::new(Script { prepare: Some(Arc::clone(&go)), ..Script::default() });
    stage.shim.announce(id()).unwrap();
    let (_, created, ()) =
        tokio::join!(stage.shim.prepare(coming(&stage)), stage.create(), async {
            tokio::task::yield_now().await;
            go.notify_one();
        });
    created.unwrap();
    assert_eq!(asked(&stage), "prepare prepared create");
}

#[tokio::test]
async fn others_do_not_wait_for_what_is_not_theirs() {
    let script = Script { prepare: Some(Arc::default()), ..Script::default() };
    let stage = Stage::new(script);
    let other = ContainerId::parse("other").unwrap();
    stage.shim.announce(other.clone()).unwrap();
    let coming = Coming { id: other, ..coming(&stage) };
    tokio::select! {
        biased;
        () = stage.shim.prepare(coming) => panic!("it hangs"),
        created = soon(stage.create()) => drop(created.unwrap()),
    }
    assert_eq!(asked(&stage), "prepare create");
}

#[tokio::test]
async fn nothing_is_prepared_for_what_is_there() {
    let stage = Stage::running(Script::default()).await;
    stage.shim.prepare(coming(&stage)).await;
    assert_eq!(asked(&stage), "create");
}

#[tokio::test]
async fn a_container_that_does_not_come_is_abandoned_once() {
    let stage = prepared(Script::default()).await;
    let other = ContainerId::parse("other").unwrap();
    stage.shim.request_shutdown(Some(&other)).await;
    assert_eq!(asked(&stage), "prepare", "it may still come");
    stage.shim.request_shutdown(Some(&id())).await;
    soon(stage.shim.shut_down()).await;
    stage.shim.close().await;
    assert_eq!(asked(&stage), "prepare abandon");
}

#[tokio::test]
async fn a_create_that_fails_early_abandons() {
    let stage = prepared(Script::default()).await;
    let stdio = StdioUris::parse("", "binary:///nowhere/at/all", "", false).unwrap();
    let create = CreateTask {
        id: id(),
        bundle: stage.bundle.clone(),
        rootfs: Vec::new(),
        stdio,
        options: None,
        checkpoint: None,
    };
    stage.shim.create(create).await.unwrap_err();
    assert_eq!(asked(&stage), "prepare abandon");
}

#[tokio::test]
async fn a_shim_that_is_ended_abandons() {
    let stage = prepared(Script::default()).await;
    stage.shim.close().await;
    assert_eq!(asked(&stage), "prepare abandon");
}

#[tokio::test]
async fn a_backend_that_hangs_does_not_keep_the_shim() {
    let script = Script { prepare: Some(Arc::default()), ..Script::default() };
    let stage = Stage::new(script);
    stage.shim.announce(id()).unwrap();
    tokio::select! {
        biased;
        () = stage.shim.prepare(coming(&stage)) => panic!("it hangs"),
        () = soon(async {
            stage.shim.request_shutdown(Some(&id())).await;
            stage.shim.shut_down().await;
            stage.shim.close().await;
        }) => {}
    }
    assert_eq!(asked(&stage), "prepare");
}
