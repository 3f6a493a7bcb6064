//! The rules at work, on the stage above.

use super::*;

#[tokio::test]
async fn a_life_is_told_in_order() {
    let stage = Stage::running(Script::default()).await;
    let task = stage.shim.task(&id()).unwrap();
    stage.add_exec().await.unwrap();
    task.start_exec(&exec()).await.unwrap();
    stage.script.end(1, 0);
    soon(task.exec(&exec()).unwrap().wait()).await;
    task.delete_exec(&exec()).await.unwrap();
    stage.script.end(0, 3);
    assert_eq!(soon(task.wait()).await.status, ExitStatus::Code(3));
    stage.shim.delete(&id()).await.unwrap();
    assert_eq!(stage.topics(), "create start exec-added exec-started exit delete exit delete");
}

#[tokio::test]
async fn an_exit_is_told_after_the_start_it_overtook() {
    let go = Arc::new(Notify::new());
    let stage = Stage::new(Script { start: Some(go.clone()), ..Script::default() });
    stage.create().await.unwrap();
    let task = stage.shim.task(&id()).unwrap();
    let starting = tokio::spawn({
        let task = task.clone();
        async move { task.start().await }
    });
    tokio::task::yield_now().await;
    stage.script.end(0, 0);
    tokio::task::yield_now().await;
    go.notify_one();
    soon(starting).await.unwrap().unwrap();
    soon(task.wait()).await;
    assert_eq!(stage.topics(), "create start exit");
}

#[tokio::test]
async fn the_end_of_a_container_is_told_after_its_execs() {
    let stage = Stage::running(Script::default()).await;
    let task = stage.shim.task(&id()).unwrap();
    stage.add_exec().await.unwrap();
    task.start_exec(&exec()).await.unwrap();
    stage.script.end(0, 1);
    tokio::task::yield_now().await;
    stage.script.end(1, 2);
    soon(task.wait()).await;
    assert_eq!(task.exec_state(&exec()).unwrap().exit.unwrap().status, ExitStatus::Code(2));
    assert_eq!(stage.topics(), "create start exec-added exec-started exit exit");
}

#[tokio::test]
async fn want_of_memory_is_told_before_the_end_it_brings() {
    let stage = Stage::running(Script::default()).await;
    stage.script.oom.notify_one();
    stage.script.end(0, 137);
    soon(stage.shim.task(&id()).unwrap().wait()).await;
    assert_eq!(stage.topics(), "create start oom exit");
}

#[tokio::test]
async fn a_create_that_fails_leaves_no_task_and_tells_nothing() {
    let stage = Stage::new(Script { refuse_create: true, ..Script::default() });
    let err = stage.create().await.unwrap_err();
    assert_eq!(format!("{err:#}"), "create c1: refused");
    assert_eq!(stage.shim.task(&id()).unwrap_err().kind(), Kind::NotFound);
    assert_eq!(stage.topics(), "");
}

#[tokio::test]
async fn an_id_is_made_once() {
    let stage = Stage::running(Script::default()).await;
    assert_eq!(stage.create().await.unwrap_err().kind(), Kind::AlreadyExists);
    stage.add_exec().await.unwrap();
    assert_eq!(stage.add_exec().await.unwrap_err().kind(), Kind::AlreadyExists);
}

#[tokio::test]
async fn what_comes_at_the_wrong_time_is_refused() {
    let stage = Stage::running(Script::default()).await;
    let task = stage.shim.task(&id()).unwrap();
    assert_eq!(task.start().await.unwrap_err().kind(), Kind::FailedPrecondition);
    assert_eq!(stage.shim.delete(&id()).await.unwrap_err().kind(), Kind::FailedPrecondition);
    stage.add_exec().await.unwrap();
    task.pause().await.unwrap();
    let err = task.start_exec(&exec()).await.unwrap_err();
    assert_eq!(err.kind(), Kind::FailedPrecondition);
    let err = task.kill_exec(&exec(), Signal::TERM).await.unwrap_err();
    assert_eq!(err.to_string(), "process not created");
}

#[tokio::test]
async fn an_exec_that_cannot_start_releases_those_who_wait() {
    let stage = Stage::running(Script { refuse_exec: true, ..Script::default() }).await;
    let task = stage.shim.task(&id()).unwrap();
    stage.add_exec().await.unwrap();
    let exec_process = task.exec(&exec()).unwrap();
    let waiting = tokio::spawn(async move { exec_process.wait().await });
    task.start_exec(&exec()).await.unwrap_err();
    assert_eq!(soon(waiting).await.unwrap().status, ExitStatus::Unknown);
    task.delete_exec(&exec()).await.unwrap();
    assert_eq!(stage.topics(), "create start exec-added delete");
}

#[tokio::test]
async fn a_container_that_never_ran_is_ended_by_its_deletion() {
    let stage = Stage::new(Script::default());
    stage.create().await.unwrap();
    let deleted = soon(stage.shim.delete(&id())).await.unwrap();
    assert_eq!(deleted.exit.status, ExitStatus::Code(137));
    assert_eq!(stage.topics(), "create exit delete");
    assert_eq!(stage.shim.delete(&id()).await.unwrap_err().kind(), Kind::NotFound);
}

#[tokio::test]
async fn of_two_deletions_one_finds_nothing() {
    let stage = Stage::running(Script::default()).await;
    let task = stage.shim.task(&id()).unwrap();
    stage.script.end(0, 0);
    soon(task.wait()).await;
    let (one, other) = soon(async { tokio::join!(task.delete(), task.delete()) }).await;
    assert_eq!([one.is_ok(), other.is_ok()].iter().filter(|ok| **ok).count(), 1);
    assert_eq!(stage.topics(), "create start exit delete");
}

#[tokio::test]
async fn a_shim_ends_only_without_containers() {
    let stage = Stage::running(Script::default()).await;
    stage.shim.request_shutdown(None).await;
    let ended = time::timeout(Duration::from_millis(20), stage.shim.shut_down()).await;
    assert!(ended.is_err(), "a container lives");
    stage.script.end(0, 0);
    soon(stage.shim.task(&id()).unwrap().wait()).await;
    stage.shim.delete(&id()).await.unwrap();
    stage.shim.request_shutdown(None).await;
    soon(stage.shim.shut_down()).await;
}

#[tokio::test]
async fn a_shim_waits_for_the_container_that_it_was_started_for() {
    let stage = Stage::running(Script::default()).await;
    let other = ContainerId::parse("other").unwrap();
    stage.shim.announce(other.clone()).unwrap();
    stage.shim.announce(id()).unwrap();
    stage.script.end(0, 0);
    soon(stage.shim.task(&id()).unwrap().wait()).await;
    stage.shim.delete(&id()).await.unwrap();
    stage.shim.request_shutdown(Some(&id())).await;
    let ended = time::timeout(Duration::from_millis(20), stage.shim.shut_down()).await;
    assert!(ended.is_err(), "another container is about to be created");
    assert_eq!(stage.shim.task(&other).unwrap_err().kind(), Kind::NotFound);
    // `delete` says that it does not come any more.
    stage.shim.request_shutdown(Some(&other)).await;
    soon(stage.shim.shut_down()).await;
}

#[tokio::test]
async fn a_shim_that_ends_takes_nobody_in() {
    let stage = Stage::new(Script::default());
    stage.shim.announce(id()).unwrap();
    let other = ContainerId::parse("other").unwrap();
    stage.shim.request_shutdown(Some(&other)).await;
    stage.shim.announce(other.clone()).unwrap();
    stage.shim.request_shutdown(Some(&other)).await;
    // It was started for the first one: nothing ends until that one is out of question, too.
    stage.shim.announce(other.clone()).unwrap();
    stage.shim.request_shutdown(Some(&id())).await;
    stage.shim.request_shutdown(Some(&other)).await;
    let late = stage.shim.announce(other).unwrap_err();
    assert_eq!(late.kind(), Kind::Unavailable);
    assert_eq!(stage.create().await.unwrap_err().kind(), Kind::Unavailable);
    soon(stage.shim.shut_down()).await;
}

#[tokio::test]
async fn whoever_waits_for_an_exec_that_is_never_started_is_answered() {
    let stage = Stage::running(Script::default()).await;
    let task = stage.shim.task(&id()).unwrap();
    let none = || StdioUris::parse("", "", "", false).unwrap();
    for deleted_by_itself in [true, false] {
        task.add_exec(exec(), oci::Process::default(), none()).await.unwrap();
        let added = task.exec(&exec()).unwrap();
        let waiting = tokio::spawn(async move { added.wait().await });
        if deleted_by_itself {
            task.delete_exec(&exec()).await.unwrap();
        } else {
            stage.script.end(0, 0);
            soon(task.wait()).await;
            task.delete().await.unwrap();
        }
        soon(waiting).await.unwrap();
    }
}

#[tokio::test]
async fn an_update_of_annotations_alone_is_no_matter_of_a_backend_without() {
    let stage = Stage::running(Script::default()).await;
    let task = stage.shim.task(&id()).unwrap();
    let annotations = [("refuse".to_owned(), "1".to_owned())].into();
    let mut update = Update { resources: None, annotations };
    task.update(&update).await.unwrap();
    update.resources = Some(oci::LinuxResources::default());
    assert_eq!(task.update(&update).await.unwrap_err().to_string(), "refused");
    update.annotations.clear();
    task.update(&update).await.unwrap();
}

#[tokio::test]
async fn what_is_asked_of_an_execs_streams_before_its_start_is_done_at_its_start() {
    let stage = Stage::running(Script::default()).await;
    let task = stage.shim.task(&id()).unwrap();
    let fifo = stage.bundle.path().join("in");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let stdio = StdioUris::parse(fifo.to_str().unwrap(), "", "", true).unwrap();
    task.add_exec(exec(), oci::Process::default(), stdio).await.unwrap();
    let added = task.exec(&exec()).unwrap();
    added.resize(WindowSize { height: 1, width: 2 }).unwrap();
    added.resize(WindowSize { height: 33, width: 44 }).unwrap();
    added.close_stdin();
    task.start_exec(&exec()).await.unwrap();
    let slave = stage.script.terminal.lock().unwrap().take().unwrap();
    assert_eq!(size_of(&slave), "33 44");
    // Nobody holds stdin open any more: a writer finds the shim's copier alone, which has ended.
    let open_for_writing = || {
        let mut options = std::fs::OpenOptions::new();
        std::os::unix::fs::OpenOptionsExt::custom_flags(options.write(true), libc::O_NONBLOCK);
        options.open(&fifo).is_ok()
    };
    soon(async {
        while open_for_writing() {
            time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    // And later ones are done at once.
    added.resize(WindowSize { height: 5, width: 6 }).unwrap();
    assert_eq!(size_of(&slave), "5 6");
}

fn size_of(terminal: &OwnedFd) -> String {
    let mut stty = std::process::Command::new("stty");
    let output = stty.arg("size").stdin(terminal.try_clone().unwrap()).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn a_saved_container_is_told_after_it_is_saved_and_runs_on() {
    let stage = Stage::new(Script { saves: Saves::Restored, ..Script::default() });
    stage.create().await.unwrap();
    let task = stage.shim.task(&id()).unwrap();
    let checkpoint = Checkpoint { path: "/image".into(), ..Checkpoint::default() };
    let err = task.checkpoint(&checkpoint).await.unwrap_err();
    assert_eq!(err.to_string(), "cannot checkpoint a created process");
    task.start().await.unwrap();
    task.checkpoint(&checkpoint).await.unwrap();
    task.pause().await.unwrap();
    task.checkpoint(&checkpoint).await.unwrap();
    assert_eq!(stage.topics(), "create start checkpointed paused checkpointed");
}

#[tokio::test]
async fn a_backend_without_checkpoints_says_so() {
    let stage = Stage::running(Script::default()).await;
    let task = stage.shim.task(&id()).unwrap();
    let err = task.checkpoint(&Checkpoint::default()).await.unwrap_err();
    assert_eq!(err.kind(), Kind::Unsupported);
    assert_eq!(stage.topics(), "create start");
}

#[tokio::test]
async fn a_restored_container_has_its_process_from_its_start_on() {
    let stage = Stage::new(Script { saves: Saves::Restored, ..Script::default() });
    assert_eq!(stage.create_from(Some("/image")).await.unwrap(), None);
    let task = stage.shim.task(&id()).unwrap();
    assert_eq!((task.state().phase, task.state().pid), (Phase::Created, None));
    let err = task.kill(Target::Init, Signal::TERM).await.unwrap_err();
    assert_eq!(err.to_string(), "process not created");
    let pid = task.start().await.unwrap();
    assert_eq!((task.state().phase, task.state().pid), (Phase::Running, Some(pid)));
    assert_eq!(task.pids().await.unwrap(), [(pid, None)]);
    stage.script.end(0, 4);
    assert_eq!(soon(task.wait()).await.status, ExitStatus::Code(4));
    assert_eq!(stage.shim.delete(&id()).await.unwrap().pid, Some(pid));
    assert_eq!(stage.topics(), "create start exit delete");
}

#[tokio::test]
async fn a_container_that_can_not_be_restored_releases_those_who_wait() {
    let stage = Stage::new(Script { saves: Saves::Broken, ..Script::default() });
    stage.create_from(Some("/image")).await.unwrap();
    let task = stage.shim.task(&id()).unwrap();
    assert_eq!(format!("{:#}", task.start().await.unwrap_err()), "restore: no image");
    assert_eq!(soon(task.wait()).await.status, ExitStatus::Unknown);
    assert_eq!(stage.shim.delete(&id()).await.unwrap().pid, None);
    assert_eq!(stage.topics(), "create delete");
}

#[tokio::test]
async fn a_container_deleted_before_its_restoration_releases_those_who_wait() {
    let stage = Stage::new(Script { saves: Saves::Restored, ..Script::default() });
    stage.create_from(Some("/image")).await.unwrap();
    let task = stage.shim.task(&id()).unwrap();
    let waiting = tokio::spawn({
        let task = Arc::clone(&task);
        async move { task.wait().await }
    });
    stage.shim.delete(&id()).await.unwrap();
    assert_eq!(soon(waiting).await.unwrap().status, ExitStatus::Code(0));
    assert_eq!(stage.topics(), "create delete");
}

#[tokio::test]
async fn a_checkpoint_that_a_backend_overlooks_is_no_fresh_container() {
    let stage = Stage::new(Script::default());
    let err = stage.create_from(Some("/image")).await.unwrap_err();
    assert_eq!(err.kind(), Kind::Unsupported, "{err:#}");
    assert_eq!(stage.shim.task(&id()).unwrap_err().kind(), Kind::NotFound);
    assert_eq!(stage.topics(), "");
}
