//! Ways out of a container that were open in some runtime once. A test's name begins with the class of
//! holes in `docs/security.md`.

use std::fs;
use std::os::unix::fs::symlink;

use anyhow::Result;
use integration::debs::{Deb, Store};
use integration::lane::Lane;
use serde_json::json;

integration::tests![
    runtime_exe_cannot_be_written_by_a_container,
    leaked_file_of_the_runtime_is_not_in_the_container,
    leaked_file_as_working_directory_leads_nowhere,
    made_outside_by_a_link_in_the_root_is_nothing,
    fake_proc_that_is_a_link_is_not_followed,
    masked_path_cannot_be_reached_by_another_name,
];

/// A container may make its entry point a link to whatever executes it, hold that file open, and
/// write to it once it no longer runs. `SELF` is what the exec then starts.
fn runtime_exe_cannot_be_written_by_a_container(lane: &Lane) -> Result<()> {
    let dir = lane.shim().dir(lane.engine(), &Store::open())?;
    let runc = Store::open().unpacked(Deb::RUNC)?.join("usr/sbin/runc");
    let binaries = [dir.join(lane.shim().binary()), runc];
    let read = || binaries.iter().map(fs::read).collect::<std::io::Result<Vec<_>>>();
    let before = read()?;

    let folder = lane.folder()?;
    let log = folder.join("log");
    let uri = format!("file://{log}");
    let script = "echo ready; while :; do for p in /proc/[0-9]*; do
        case \"$(readlink $p/exe 2>/dev/null)\" in
        ''|/bin/busybox) ;;
        *) ( exec 3< $p/exe && for i in 1 2 3 4 5; do
               (: >> /proc/self/fd/3) && echo opened $(readlink /proc/self/fd/3); done ) ;;
        esac; done; done 2>/dev/null";
    let container = lane.start(&["--log-uri", &uri], &["sh", "-c", script])?;
    for _ in 0..5 {
        // Whatever comes of it, it must not be the runtime in the container's hands.
        container.exec(&["/bin/self", "--version"])?;
    }
    container.remove()?;
    lane.run(&[], &["/bin/self", "--version"])?;

    let log = fs::read_to_string(log)?;
    assert!(log.contains("ready") && !log.contains("opened"), "{log}");
    assert!(read()? == before, "a binary has changed");
    Ok(())
}

fn leaked_file_of_the_runtime_is_not_in_the_container(lane: &Lane) -> Result<()> {
    let container = lane.sleeper(&[])?;
    let list = |pid: i32| -> Result<Vec<String>> {
        let entries = fs::read_dir(format!("/proc/{pid}/fd"))?;
        let mut names: Vec<_> = entries
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        Ok(names)
    };
    assert_eq!(list(container.pid()?)?, ["0", "1", "2"]);
    // The fourth is the folder that is listed.
    assert_eq!(container.output(&[], &["ls", "/proc/self/fd"])?, "0\n1\n2\n3\n");
    container.remove()?;
    Ok(())
}

/// A descriptor of the runtime, open in the moment of the start, could be the working directory.
fn leaked_file_as_working_directory_leads_nowhere(lane: &Lane) -> Result<()> {
    let container = lane.sleeper(&[])?;
    // The lane's own folder is on the host and in no container.
    let host = ["ls", "-d", "../../../../../../run/it"];
    for number in 3..12 {
        let cwd = format!("/proc/self/fd/{number}");
        let exec = container.exec_with(&["--cwd", &cwd], &host)?;
        assert_ne!(exec.status, 0, "{cwd}: {}", exec.stdout);
        let run = lane.run(&["--cwd", &cwd], &host)?;
        assert_ne!(run.status, 0, "{cwd}: {}", run.stdout);
    }
    container.remove()?;
    Ok(())
}

fn made_outside_by_a_link_in_the_root_is_nothing(lane: &Lane) -> Result<()> {
    let (source, outside) = (lane.folder()?, lane.folder()?);
    fs::write(source.path().join("file"), "from the mount\n")?;
    let draft = lane.draft(&["cat", "/link/deep/file"])?;
    symlink(outside.path(), draft.folder.path().join("rootfs/link"))?;
    let mount = json!({ "destination": "/link/deep", "type": "bind", "source": source.path(),
                        "options": ["rbind", "ro"] });
    let output = lane.run_draft(&draft, |spec| spec.push("/mounts", mount))?;
    // Inside, the link leads to a folder of the same name below the container's own root.
    assert_eq!(output.stdout, "from the mount\n", "{}", output.stderr);
    assert_eq!(fs::read_dir(outside.path())?.count(), 0, "something was made on the host");
    Ok(())
}

fn fake_proc_that_is_a_link_is_not_followed(lane: &Lane) -> Result<()> {
    let draft = lane.draft(&["cat", "/proc/self/comm"])?;
    let proc = draft.folder.path().join("rootfs/proc");
    fs::remove_dir(&proc)?;
    symlink("/tmp", &proc)?;
    let output = lane.run_draft(&draft, |spec| spec)?;
    assert_ne!(output.status, 0, "{}", output.stdout);
    assert!(output.stderr.contains("proc"), "{}", output.stderr);
    Ok(())
}

fn masked_path_cannot_be_reached_by_another_name(lane: &Lane) -> Result<()> {
    let script = "cat /proc/1/root/proc/keys /proc/self/root/proc/timer_list; echo end";
    let output = lane.output(&[], &["sh", "-c", script])?;
    assert_eq!(output, "end\n");
    Ok(())
}
