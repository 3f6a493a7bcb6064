//! A shim for all containers of a containerd namespace, as users ask for it.

use std::collections::BTreeSet;
use std::fs;
use std::thread;

use anyhow::{Result, ensure};
use integration::client::{Client, Streams, Target};
use integration::container::Container;
use integration::ctr::Ctr;
use integration::folder::Folder;
use integration::lane::Lane;
use integration::wait::{self, SOON};
use integration::{procs, shim};
use nix::sys::signal::Signal;
use serde_json::json;

integration::tests![
    containers_of_a_namespace_share_a_shim_if_the_options_say_so,
    containers_of_a_namespace_share_a_shim_if_the_environment_says_so,
    a_named_group_stays_apart,
    a_grouping_that_is_unknown_is_refused_by_name,
    ids_of_two_namespaces_do_not_meet,
    a_crowd_that_starts_at_once_shares_a_shim,
    containers_come_and_go_beside_each_other,
    the_shim_logs_on_when_its_first_container_is_gone,
    nothing_is_left_of_a_namespace_whose_shim_was_killed,
    a_namespace_is_found_again_after_a_crash_of_containerd,
];

const SLEEP: [&str; 2] = ["sleep", "1000"];

/// A file of options, as `ctr` can name one.
struct Options {
    path: String,
    _folder: Folder,
}

impl Options {
    fn new(lane: &Lane, text: &str) -> Result<Self> {
        lane.go_cannot("it has no such option")?;
        let folder = lane.folder()?;
        let path = folder.join("options.toml");
        fs::write(&path, text)?;
        Ok(Self { path, _folder: folder })
    }

    fn namespace(lane: &Lane) -> Result<Self> {
        Self::new(lane, "Grouping = \"namespace\"\n")
    }

    fn flags<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        [&["--null-io", "--runtime-config-path", &self.path], more].concat()
    }

    /// A container that sleeps.
    fn start(&self, lane: &Lane, ctr: &Ctr) -> Result<Container> {
        let container = lane.start_on(ctr, &self.flags(&[]), &SLEEP)?;
        container.settle()?;
        Ok(container)
    }
}

fn shims(containers: &[Container]) -> Result<BTreeSet<i32>> {
    containers.iter().map(Container::shim).collect()
}

fn containers_of_a_namespace_share_a_shim_if_the_options_say_so(lane: &Lane) -> Result<()> {
    let options = Options::namespace(lane)?;
    let pod = ["--annotation", "io.kubernetes.cri.sandbox-id=pod"];
    let containers = [
        lane.sleeper(&options.flags(&[]))?,
        lane.sleeper(&options.flags(&[]))?,
        lane.sleeper(&options.flags(&pod))?,
    ];
    let alone = lane.sleeper(&[])?;
    let shims = shims(&containers)?;
    assert_eq!(shims.len(), 1);
    assert!(!shims.contains(&alone.shim()?));
    assert_eq!(alone.remove()?, 137);
    for container in containers {
        assert_eq!(container.exec(&["sh", "-c", "exit 4"])?.status, 4);
        assert_eq!(container.remove()?, 137);
    }
    Ok(())
}

fn containers_of_a_namespace_share_a_shim_if_the_environment_says_so(lane: &Lane) -> Result<()> {
    let apart = Options::new(lane, "Grouping = \"pod\"\n")?;
    let daemon = lane.own_daemon_with(&[("SHIM_GROUPING", "namespace")])?;
    let start = || lane.start_on(daemon.ctr(), &["--null-io"], &SLEEP);
    let containers = [start()?, start()?];
    // Options have the last word.
    let alone = apart.start(lane, daemon.ctr())?;
    let shims = shims(&containers)?;
    assert_eq!(shims.len(), 1);
    assert!(!shims.contains(&alone.shim()?));
    for container in containers.into_iter().chain([alone]) {
        container.remove()?;
    }
    Ok(())
}

fn a_named_group_stays_apart(lane: &Lane) -> Result<()> {
    let options = Options::namespace(lane)?;
    let named = ["--annotation", "io.containerd.runc.v2.group=vip"];
    let many = lane.sleeper(&options.flags(&[]))?;
    let group = [lane.sleeper(&options.flags(&named))?, lane.sleeper(&options.flags(&named))?];
    let shims = shims(&group)?;
    assert_eq!(shims.len(), 1);
    assert!(!shims.contains(&many.shim()?));
    for container in group.into_iter().chain([many]) {
        container.remove()?;
    }
    Ok(())
}

fn a_grouping_that_is_unknown_is_refused_by_name(lane: &Lane) -> Result<()> {
    let options = Options::new(lane, "Grouping = \"host\"\n")?;
    let output = lane.run(&options.flags(&[]), &["true"])?;
    assert_ne!(output.status, 0);
    let expected = "grouping \"host\" is unknown: pod or namespace";
    assert!(output.stderr.replace('\\', "").contains(expected), "{}", output.stderr);
    let daemon = lane.own_daemon_with(&[("SHIM_GROUPING", "Namespace")])?;
    let name = lane.name();
    let output = daemon.ctr().run(&lane.run_command(&["--rm"], &name, &["true"]))?;
    assert_ne!(output.status, 0);
    assert!(output.stderr.contains("SHIM_GROUPING"), "{}", output.stderr);
    Ok(())
}

fn ids_of_two_namespaces_do_not_meet(lane: &Lane) -> Result<()> {
    lane.go_cannot("it has no such option")?;
    let daemon = lane.own_daemon_with(&[("SHIM_GROUPING", "namespace")])?;
    let drafts = [lane.draft(&SLEEP)?, lane.draft(&SLEEP)?];
    let names = [lane.mark().to_owned(), format!("{}-other", lane.mark())];
    let socket = daemon.socket();
    lane.talk_to(&daemon, async |_| {
        let mut clients = Vec::new();
        for name in &names {
            clients.push(Client::connect(&socket, name, lane.shim().runtime()).await?);
        }
        let init = Target::init("same");
        let mut pids = Vec::new();
        for (client, draft) in clients.iter().zip(&drafts) {
            client.create_container("same", &draft.spec, None).await?;
            client.create("same", &[], &Streams::default()).await?;
            pids.push(i32::try_from(client.start(init).await?)?);
        }
        ensure!(procs::parent(pids[0])? != procs::parent(pids[1])?, "they share a shim");
        clients[0].kill(init, 9).await?;
        clients[0].wait(init).await?;
        clients[0].delete(init).await?;
        ensure!(procs::runs(pids[1]), "the other namespace's container has ended");
        ensure!(i32::try_from(clients[1].get(init).await?.pid)? == pids[1], "it is another");
        clients[1].kill(init, 9).await?;
        clients[1].wait(init).await?;
        clients[1].delete(init).await?;
        for client in clients {
            client.delete_container("same").await?;
        }
        Ok(())
    })
}

fn a_crowd_that_starts_at_once_shares_a_shim(lane: &Lane) -> Result<()> {
    let options = Options::namespace(lane)?;
    let ctr = lane.ctr();
    let started = thread::scope(|scope| {
        let start = || lane.start_on(&ctr, &options.flags(&[]), &SLEEP);
        let threads: Vec<_> = (0..12).map(|_| scope.spawn(start)).collect();
        let ended = threads.into_iter().map(|thread| thread.join().expect("it does not panic"));
        ended.collect::<Result<Vec<_>>>()
    })?;
    assert_eq!(shims(&started)?.len(), 1);
    assert_eq!(shim::sockets()?.len(), 1);
    for container in started {
        container.remove()?;
    }
    Ok(())
}

fn containers_come_and_go_beside_each_other(lane: &Lane) -> Result<()> {
    let options = Options::namespace(lane)?;
    thread::scope(|scope| {
        let work = || -> Result<()> {
            for number in 0..6 {
                let script = format!("exit {number}");
                let output = lane.run(&options.flags(&[]), &["sh", "-c", &script])?;
                ensure!(output.status == number, "{}: {}", output.status, output.stderr);
            }
            Ok(())
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("it does not panic"))
    })
}

fn the_shim_logs_on_when_its_first_container_is_gone(lane: &Lane) -> Result<()> {
    lane.go_cannot("it has no such option")?;
    let daemon = lane.own_daemon_with(&[("SHIM_GROUPING", "namespace")])?;
    let start = || lane.start_on(daemon.ctr(), &["--null-io"], &SLEEP);
    let (first, second) = (start()?, start()?);
    let shim = first.shim()?;
    let (first_bundle, second_bundle) = (daemon.bundle(first.id()), daemon.bundle(second.id()));
    let stands_in = || fs::read_link(format!("/proc/{shim}/cwd"));
    assert_eq!(stands_in()?, first_bundle);
    first.remove()?;
    wait::until("the first bundle's end", SOON, || {
        ensure!(!first_bundle.exists(), "it is there");
        Ok(())
    })?;
    assert_eq!(stands_in()?, second_bundle);
    // What the shim has to say goes into another fifo, and on into containerd's log.
    let draft = lane.draft(&["true"])?;
    let fly = json!(["CAP_TO_FLY"]);
    let spec = draft.spec.clone().set("/process/capabilities/bounding", fly);
    lane.talk_to(&daemon, async |client| {
        client.create_container(&draft.name, &spec, None).await?;
        let init = Target::init(&draft.name);
        client.create(&draft.name, &[], &Streams::default()).await?;
        client.start(init).await?;
        client.wait(init).await?;
        client.delete(init).await?;
        client.delete_container(&draft.name).await
    })?;
    let log = lane.log();
    assert!(log.contains("unknown capabilities are left out: CAP_TO_FLY"), "{log}");
    second.remove()?;
    Ok(())
}

fn nothing_is_left_of_a_namespace_whose_shim_was_killed(lane: &Lane) -> Result<()> {
    let options = Options::namespace(lane)?;
    let containers =
        (0..5).map(|_| options.start(lane, &lane.ctr())).collect::<Result<Vec<_>>>()?;
    containers[1].task(&["pause"])?;
    containers[2].task(&["kill", "--signal", "9"])?;
    let pids = containers.iter().map(Container::pid).collect::<Result<Vec<_>>>()?;
    let shim = containers[0].shim()?;
    procs::signal(shim, Signal::SIGKILL)?;
    wait::until("the end of the containers", SOON, || {
        ensure!(!pids.iter().any(|&pid| procs::runs(pid)), "{pids:?} run");
        Ok(())
    })?;
    let next = options.start(lane, &lane.ctr())?;
    assert_ne!(next.shim()?, shim);
    for container in &containers {
        container.forget()?;
    }
    assert_eq!(next.exec(&["sh", "-c", "exit 4"])?.status, 4);
    next.remove()?;
    Ok(())
}

fn a_namespace_is_found_again_after_a_crash_of_containerd(lane: &Lane) -> Result<()> {
    let options = Options::namespace(lane)?;
    let mut daemon = lane.own_daemon()?;
    let containers =
        (0..3).map(|_| options.start(lane, daemon.ctr())).collect::<Result<Vec<_>>>()?;
    let shim = containers[0].shim()?;
    daemon.kill();
    daemon.start_again()?;
    let late = options.start(lane, daemon.ctr())?;
    assert_eq!(late.shim()?, shim);
    for container in containers.into_iter().chain([late]) {
        container.wait_status("RUNNING")?;
        assert_eq!(container.exec(&["sh", "-c", "exit 4"])?.status, 4);
        assert_eq!(container.remove()?, 137);
    }
    Ok(())
}
