//! Containers that are saved, and go on from there: by CRIU.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, Result, ensure};
use integration::cgroups::{self, Value};
use integration::client::messages::{CreateTaskRequest, Status};
use integration::client::{Client, Streams, Target};
use integration::container::Container;
use integration::daemon::Daemon;
use integration::debs::{Deb, Patched, Store};
use integration::folder::Folder;
use integration::image;
use integration::lane::{Draft, Lane};
use integration::runner::Skip;
use integration::shim::{GO, Shim};
use integration::spec::Spec;
use integration::wait::{self, SOON};
use serde_json::json;
use shim_protos::Any;
use shim_protos::cgroups_v1::Metrics;
use shim_protos::protobuf::Message;
use shim_protos::runc::{self, CheckpointOptions};

integration::tests![
    one_that_ends_with_it_goes_on_from_its_number,
    one_that_is_left_running_goes_on_and_so_does_its_copy,
    one_that_is_paused_stays_paused,
    one_with_a_terminal_goes_on,
    a_connection_is_saved_where_that_is_allowed,
    a_restored_one_is_like_any_other,
    one_in_the_network_of_another_goes_on,
    a_failed_restore_leaves_nothing,
    a_criu_that_is_missing_or_too_old_or_broken_is_told,
    another_runtime_saves_and_restores,
    ctr_saves_and_restores,
];

/// Counts, a number a line.
const COUNTER: [&str; 3] = ["sh", "-c", "i=0; while :; do echo $i; i=$((i + 1)); sleep 0.02; done"];

/// A daemon that finds a CRIU, and our shim under the name of containerd's own: of that one alone it
/// takes a place for a checkpoint. Dropped, it takes what CRIU has learned of the kernel with it.
struct Place<'a> {
    lane: &'a Lane,
    criu: PathBuf,
    folder: Folder,
    daemon: Daemon,
}

impl<'a> Place<'a> {
    fn new(lane: &'a Lane) -> Result<Self> {
        lane.go_cannot("it is not it that is found under this name")?;
        let store = Store::open();
        let criu = Patched::CRIU.fetched(&store).map_err(|error| Skip(format!("{error:#}")))?;
        let folder = lane.folder()?;
        let shim = lane.shim();
        let ours = shim.dir(lane.engine(), &store)?.join(shim.binary());
        symlink(ours, folder.path().join(Shim::named(GO).binary()))?;
        let mut path = vec![folder.path().to_owned()];
        path.extend(criu.parent().map(Path::to_owned));
        path.extend(env::split_paths("/usr/sbin:/usr/bin:/sbin:/bin"));
        let path = env::join_paths(path)?.into_string().ok().context("an odd path")?;
        let daemon = lane.own_daemon_with(&[("PATH", path.leak())])?;
        Ok(Self { lane, criu, folder, daemon })
    }

    fn talk<T>(&self, talk: impl AsyncFnOnce(Client) -> Result<T>) -> Result<T> {
        self.lane.talk_to(&self.daemon, async |client| talk(client.with_runtime(GO)).await)
    }

    /// Where a checkpoint goes.
    fn image(&self) -> String {
        self.folder.join("image")
    }

    /// Saves a container, which ends with that.
    fn exit(&self) -> CheckpointOptions {
        CheckpointOptions { exit: true, ..self.stay() }
    }

    /// Saves a container, which goes on.
    fn stay(&self) -> CheckpointOptions {
        CheckpointOptions { image_path: self.image(), ..Default::default() }
    }

    /// The runtime's options of a container that is restored.
    fn restored(&self) -> runc::Options {
        runc::Options { criu_image_path: self.image(), ..Default::default() }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        // It keeps that only where `/run` is a tmpfs.
        let _ = fs::remove_file("/run/criu.kdat");
    }
}

/// A container whose output goes to a file.
struct Subject<'a> {
    client: &'a Client,
    draft: &'a Draft,
    spec: Spec,
}

impl<'a> Subject<'a> {
    fn new(client: &'a Client, draft: &'a Draft) -> Self {
        Self { client, draft, spec: draft.spec.clone() }
    }

    fn with(self, change: impl FnOnce(Spec) -> Spec) -> Self {
        Self { spec: change(self.spec), ..self }
    }

    fn id(&self) -> &'a str {
        &self.draft.name
    }

    fn init(&self) -> Target<'a> {
        Target::init(self.id())
    }

    fn log(&self) -> String {
        self.draft.folder.join("log")
    }

    /// Makes it and lets it run.
    async fn start(&self) -> Result<u32> {
        self.start_by(runc::Options::default()).await
    }

    /// Makes it and lets it run, from a checkpoint if the runtime's options name one.
    async fn start_by(&self, options: runc::Options) -> Result<u32> {
        let value = options.write_to_bytes()?;
        let type_url = "containerd.runc.v1.Options".to_owned();
        let any = Any { type_url, value, ..Default::default() };
        self.client.create_container(self.id(), &self.spec, Some(any.clone())).await?;
        let stdout = format!("file://{}", self.log());
        let streams = Streams { stdout, ..Streams::default() };
        let terminal = self.spec.json()["process"]["terminal"] == json!(true);
        let request =
            CreateTaskRequest { terminal, options: Some(any).into(), ..Default::default() };
        let made = self.client.create_with(self.id(), request, &streams).await?;
        assert_eq!(made == 0, !options.criu_image_path.is_empty(), "a process before its start");
        self.client.start(self.init()).await
    }

    /// Makes one that has failed to start go.
    async fn forget_failed(&self) -> Result<()> {
        self.client.delete(self.init()).await?;
        self.client.delete_container(self.id()).await
    }

    /// Waits for the end, and returns its status.
    async fn finish(&self) -> Result<u32> {
        let status = self.client.wait(self.init()).await?;
        self.client.delete(self.init()).await?;
        self.client.delete_container(self.id()).await?;
        Ok(status)
    }

    async fn remove(&self) -> Result<()> {
        self.client.kill(self.init(), 9).await?;
        assert_eq!(self.finish().await?, 137);
        Ok(())
    }

    async fn status(&self) -> Result<Status> {
        self.client.status(self.init()).await?.enum_value().ok().context("an unknown status")
    }

    /// The numbers that it has written.
    fn numbers(&self) -> Result<Vec<u64>> {
        let text = fs::read_to_string(self.log())?;
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        Ok(whole.lines().map(|line| line.trim().parse()).collect::<Result<_, _>>()?)
    }

    /// Waits until it has counted to a number, and returns all.
    fn counted_to(&self, number: u64) -> Result<Vec<u64>> {
        wait::until(format!("{} to count to {number}", self.id()), SOON, || {
            let numbers = self.numbers()?;
            ensure!(numbers.last() >= Some(&number), "{:?}", numbers.last());
            Ok(numbers)
        })
    }
}

/// Sees that a container has gone on where another one has stopped.
fn goes_on(before: &[u64], after: &[u64]) {
    let (last, first) = (before.last().copied(), after.first().copied());
    // A number may have been on its way through the pipe.
    let next = last.map(|last| last + 1);
    assert_eq!(first, next, "after {last:?}");
    assert!(after.windows(2).all(|two| two[0] + 1 == two[1]), "{after:?}");
}

/// Sees that a container has ended with its checkpoint, and another one goes on from there.
async fn carries_on(place: &Place<'_>, first: &Subject<'_>, second: &Subject<'_>) -> Result<()> {
    assert_eq!(first.finish().await?, 137);
    let before = first.numbers()?;
    second.start_by(place.restored()).await?;
    goes_on(&before, &second.counted_to(before.len() as u64 + 5)?);
    second.remove().await
}

fn one_that_ends_with_it_goes_on_from_its_number(lane: &Lane) -> Result<()> {
    let place = Place::new(lane)?;
    let (first, second) = (lane.draft(&COUNTER)?, lane.draft(&COUNTER)?);
    place.talk(async |client| {
        let (first, second) = (Subject::new(&client, &first), Subject::new(&client, &second));
        let mut events = client.events(first.id()).await?;
        first.start().await?;
        first.counted_to(5)?;
        client.checkpoint(first.id(), &place.exit()).await?;
        let told = events.until("exit").await?;
        let kinds: Vec<_> = told.iter().map(|event| event.kind.as_str()).collect();
        assert_eq!(kinds, ["create", "start", "checkpointed", "exit"]);
        carries_on(&place, &first, &second).await
    })
}

fn one_that_is_left_running_goes_on_and_so_does_its_copy(lane: &Lane) -> Result<()> {
    let place = Place::new(lane)?;
    let (first, second) = (lane.draft(&COUNTER)?, lane.draft(&COUNTER)?);
    place.talk(async |client| {
        let (first, second) = (Subject::new(&client, &first), Subject::new(&client, &second));
        first.start().await?;
        first.counted_to(5)?;
        client.checkpoint(first.id(), &place.stay()).await?;
        let numbers = first.counted_to(first.numbers()?.len() as u64 + 5)?;
        assert_eq!(first.status().await?, Status::RUNNING);
        // The same once more: nothing of the first time is in the way.
        client.checkpoint(first.id(), &place.stay()).await?;
        second.start_by(place.restored()).await?;
        let copied = second.counted_to(numbers.len() as u64 + 5)?;
        assert!(copied[0] >= numbers.len() as u64, "{copied:?}");
        first.remove().await?;
        second.remove().await
    })
}

fn one_that_is_paused_stays_paused(lane: &Lane) -> Result<()> {
    let place = Place::new(lane)?;
    let (first, second) = (lane.draft(&COUNTER)?, lane.draft(&COUNTER)?);
    place.talk(async |client| {
        let (first, second) = (Subject::new(&client, &first), Subject::new(&client, &second));
        first.start().await?;
        first.counted_to(5)?;
        client.pause(first.id()).await?;
        client.checkpoint(first.id(), &place.stay()).await?;
        assert_eq!(first.status().await?, Status::PAUSED);
        let before = first.numbers()?;
        client.resume(first.id()).await?;
        first.counted_to(before.len() as u64 + 5)?;
        client.pause(first.id()).await?;
        client.checkpoint(first.id(), &place.exit()).await?;
        carries_on(&place, &first, &second).await
    })
}

fn one_with_a_terminal_goes_on(lane: &Lane) -> Result<()> {
    let place = Place::new(lane)?;
    let (first, second) = (lane.draft(&COUNTER)?, lane.draft(&COUNTER)?);
    let terminal = |spec: Spec| spec.set("/process/terminal", json!(true));
    place.talk(async |client| {
        let first = Subject::new(&client, &first).with(terminal);
        let second = Subject::new(&client, &second).with(terminal);
        first.start().await?;
        first.counted_to(5)?;
        let options = CheckpointOptions { terminal: true, ..place.exit() };
        client.checkpoint(first.id(), &options).await?;
        carries_on(&place, &first, &second).await
    })
}

fn a_connection_is_saved_where_that_is_allowed(lane: &Lane) -> Result<()> {
    let place = Place::new(lane)?;
    // Each number goes through a connection before it is told.
    let script = "ip link set lo up; tail -f /dev/null | nc -l -p 7 & sleep 0.1; i=0; \
                  while :; do echo $i; i=$((i + 1)); sleep 0.02; done | nc 127.0.0.1 7";
    let args = ["sh", "-c", script];
    let (first, second) = (lane.draft(&args)?, lane.draft(&args)?);
    place.talk(async |client| {
        let (first, second) = (Subject::new(&client, &first), Subject::new(&client, &second));
        first.start().await?;
        first.counted_to(5)?;
        let refused = client.checkpoint(first.id(), &place.exit()).await;
        let told = format!("{:#}", refused.err().context("it was saved")?);
        assert!(told.contains("tcp") && told.contains("dump.log"), "{told}");
        // It has not suffered.
        assert_eq!(first.status().await?, Status::RUNNING);
        first.counted_to(first.numbers()?.len() as u64 + 5)?;
        let options = CheckpointOptions { open_tcp: true, ..place.exit() };
        client.checkpoint(first.id(), &options).await?;
        carries_on(&place, &first, &second).await
    })
}

fn a_restored_one_is_like_any_other(lane: &Lane) -> Result<()> {
    const LIMIT: u64 = 48 << 20;
    let place = Place::new(lane)?;
    let script = "trap 'exit 7' TERM; i=0; while :; do echo $i; i=$((i + 1)); sleep 0.02; done";
    let args = ["sh", "-c", script];
    let (first, second) = (lane.draft(&args)?, lane.draft(&args)?);
    let limited =
        |spec: Spec| spec.set("/linux/resources/memory", json!({ "limit": LIMIT, "swap": LIMIT }));
    place.talk(async |client| {
        let first = Subject::new(&client, &first).with(limited);
        let second = Subject::new(&client, &second).with(limited);
        first.start().await?;
        first.counted_to(5)?;
        client.checkpoint(first.id(), &place.exit()).await?;
        assert_eq!(first.finish().await?, 137);
        let mut events = client.events(second.id()).await?;
        let pid = second.start_by(place.restored()).await?;
        second.counted_to(first.numbers()?.len() as u64 + 1)?;
        // Its own limits, and its own numbers.
        assert_eq!(cgroups::read(pid.cast_signed(), Value::MemoryLimit)?, LIMIT);
        let told = Metrics::parse_from_bytes(&client.metrics(second.id()).await?.value)?;
        assert_eq!(told.memory.usage.limit, LIMIT);
        let pids = client.pids(second.id()).await?;
        assert!(pids.iter().any(|(one, _)| *one == pid), "no {pid} in {pids:?}");
        let exec = Target::exec(second.id(), "e1");
        let run = async |args: &[&str]| -> Result<u32> {
            let process = json!({
                "args": args, "cwd": "/", "env": ["PATH=/bin:/usr/bin"],
                "user": { "uid": 0, "gid": 0 },
            });
            client.exec(exec, &process, &Streams::default()).await?;
            client.start(exec).await?;
            let status = client.wait(exec).await?;
            client.delete(exec).await?;
            Ok(status)
        };
        assert_eq!(run(&["sh", "-c", "test -d /proc/1 && exit 3"]).await?, 3);
        // One line without an end is more than there is room for.
        assert_eq!(run(&["tail", "/dev/zero"]).await?, 137);
        events.until("oom").await?;
        client.pause(second.id()).await?;
        assert_eq!(second.status().await?, Status::PAUSED);
        client.resume(second.id()).await?;
        let numbers = second.numbers()?.len() as u64;
        second.counted_to(first.numbers()?.len() as u64 + numbers + 2)?;
        client.kill(second.init(), 15).await?;
        assert_eq!(second.finish().await?, 7);
        Ok(())
    })
}

fn one_in_the_network_of_another_goes_on(lane: &Lane) -> Result<()> {
    let place = Place::new(lane)?;
    let (first, second) = (lane.draft(&COUNTER)?, lane.draft(&COUNTER)?);
    let pod = lane.sleeper(&[])?;
    let network = format!("/proc/{}/ns/net", pod.pid()?);
    let joined = |spec: Spec| {
        let mut all = spec.json()["linux"]["namespaces"].clone();
        for one in all.as_array_mut().into_iter().flatten() {
            if one["type"] == "network" {
                one["path"] = json!(network);
            }
        }
        spec.set("/linux/namespaces", all)
    };
    place.talk(async |client| {
        let first = Subject::new(&client, &first).with(joined);
        let second = Subject::new(&client, &second).with(joined);
        first.start().await?;
        first.counted_to(5)?;
        client.checkpoint(first.id(), &place.exit()).await?;
        assert_eq!(first.finish().await?, 137);
        let before = first.numbers()?;
        let pid = second.start_by(place.restored()).await?;
        goes_on(&before, &second.counted_to(before.len() as u64 + 5)?);
        assert_eq!(fs::read_link(format!("/proc/{pid}/ns/net"))?, fs::read_link(&network)?);
        second.remove().await
    })?;
    pod.remove()?;
    Ok(())
}

fn a_failed_restore_leaves_nothing(lane: &Lane) -> Result<()> {
    let place = Place::new(lane)?;
    let (first, second) = (lane.draft(&COUNTER)?, lane.draft(&COUNTER)?);
    let source = first.folder.join("source");
    fs::create_dir(&source)?;
    let bound = |spec: Spec| {
        let mount = json!({ "destination": "/data/deep", "type": "bind", "source": source,
                            "options": ["rbind", "rw"] });
        spec.push("/mounts", mount)
    };
    place.talk(async |client| {
        let first = Subject::new(&client, &first).with(bound);
        first.start().await?;
        first.counted_to(5)?;
        client.checkpoint(first.id(), &place.exit()).await?;
        assert_eq!(first.finish().await?, 137);
        // Without the mount there is nothing to put in its place.
        let other = Subject::new(&client, &second);
        let failed = other.start_by(place.restored()).await;
        let told = format!("{:#}", failed.err().context("it was restored")?);
        assert!(told.contains("mnt: ") && told.contains("restore.log"), "{told}");
        assert_eq!(other.status().await?, Status::STOPPED);
        other.forget_failed().await?;
        // With it there is, and the place for it is made.
        let other = Subject::new(&client, &second).with(bound);
        other.start_by(place.restored()).await?;
        other.counted_to(first.numbers()?.len() as u64 + 1)?;
        other.remove().await
    })
}

fn a_criu_that_is_missing_or_too_old_or_broken_is_told(lane: &Lane) -> Result<()> {
    let place = Place::new(lane)?;
    let draft = lane.draft(&["sleep", "1000"])?;
    // It answers the question for its version with 3.13, as CRIU does.
    let old = r"head -c 1 <&3 > /dev/null; printf '\010\012\020\001\122\004\010\003\020\015' >&3";
    let broken = "echo 'Unexpected rt vDSO area bounds' >&2; exit 1";
    let cases = [
        ("missing", "", "No such file"),
        ("old", old, "3.13 is too old"),
        ("broken", broken, "vDSO area"),
    ];
    for (name, lines, expected) in cases {
        let criu_path = draft.folder.join(name);
        if !lines.is_empty() {
            fs::write(&criu_path, format!("#!/bin/sh\n{lines}\n"))?;
            fs::set_permissions(&criu_path, fs::Permissions::from_mode(0o755))?;
        }
        place.talk(async |client| {
            let subject = Subject::new(&client, &draft);
            subject.start_by(runc::Options { criu_path, ..Default::default() }).await?;
            let refused = client.checkpoint(subject.id(), &place.exit()).await;
            let told = format!("{:#}", refused.err().context("it was saved")?);
            assert!(told.contains("criu") && told.contains(expected), "{told}");
            assert_eq!(subject.status().await?, Status::RUNNING);
            subject.remove().await
        })?;
    }
    Ok(())
}

fn another_runtime_saves_and_restores(lane: &Lane) -> Result<()> {
    let place = Place::new(lane)?;
    let (first, second) = (lane.draft(&COUNTER)?, lane.draft(&COUNTER)?);
    let binary = Store::open().unpacked(Deb::RUNC)?.join("usr/sbin/runc");
    let options = runc::Options {
        binary_name: binary.display().to_string(),
        criu_path: place.criu.display().to_string(),
        root: first.folder.join("state"),
        ..Default::default()
    };
    place.talk(async |client| {
        let (first, second) = (Subject::new(&client, &first), Subject::new(&client, &second));
        first.start_by(options.clone()).await?;
        first.counted_to(5)?;
        client.checkpoint(first.id(), &place.stay()).await?;
        first.counted_to(first.numbers()?.len() as u64 + 5)?;
        client.checkpoint(first.id(), &place.exit()).await?;
        assert_eq!(first.finish().await?, 137);
        let before = first.numbers()?;
        let restored = runc::Options { criu_image_path: place.image(), ..options };
        second.start_by(restored).await?;
        goes_on(&before, &second.counted_to(before.len() as u64 + 5)?);
        second.remove().await
    })
}

fn ctr_saves_and_restores(lane: &Lane) -> Result<()> {
    let place = Place::new(lane)?;
    let ctr = place.daemon.ctr();
    let log = format!("file://{}", place.folder.join("log"));
    let name = lane.name();
    let head = ["run", "--runtime", GO, "--detach", "--log-uri", &log, image::NAME, &name];
    ctr.ok(&[head.as_slice(), &COUNTER].concat())?;
    let container = Container::new(ctr, &name);
    container.settle()?;
    let image = place.image();
    container.task(&["checkpoint", "--image-path", &image])?;
    assert_eq!(container.status()?.as_deref(), Some("RUNNING"));
    let reference = "example.com/saved:1";
    ctr.ok(&["container", "checkpoint", "--task", "--rw", "--image", &name, reference])?;
    container.task(&["checkpoint", "--exit", "--image-path", &image])?;
    assert_eq!(container.delete_task()?, 137);
    container.delete()?;
    let again = lane.name();
    ctr.ok(&["container", "restore", "--live", "--rw", &again, reference])?;
    let container = Container::new(ctr, &again);
    assert_eq!(container.status()?.as_deref(), Some("RUNNING"));
    assert_eq!(container.output(&[], &["cat", "/proc/1/comm"])?, "sh\n");
    assert_eq!(container.remove()?, 137);
    // The fifos of a task that it has started and left.
    fs::remove_dir_all("/run/containerd/fifo")?;
    Ok(())
}
