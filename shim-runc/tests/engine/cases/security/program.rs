//! The runtime's own program, and what it has open.

use std::{
    fs::{self, File},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, symlink},
    path::Path,
};

use nix::errno::Errno;
use serde_json::Value;
use shim_core::{
    Container, Target,
    model::{ExitStatus, Signal},
};

use super::cases;
use crate::{
    Bench,
    bundle::{Made, Running, process, read_all},
    host,
};

/// A container that could do what it likes with processes that it sees.
fn tracer(made: Made) -> Made {
    made.with(|spec| add_tracing(&mut spec["process"]))
}

fn add_tracing(process: &mut Value) {
    for set in ["bounding", "effective", "permitted"] {
        let set = process["capabilities"][set].as_array_mut().unwrap();
        set.push("CAP_SYS_PTRACE".into());
    }
}

/// Adds processes that end at once.
async fn add_many(running: &Running) {
    for _ in 0..50 {
        let (started, output) = running.exec("e", &["/bin/true"]).await.unwrap();
        assert_eq!(started.exit.await.status, ExitStatus::Code(0));
        drop(output);
    }
}

/// The file that a process runs is not the shim's own, and can't be opened for writing by the host's
/// root either.
fn assert_sealed(pid: i32) {
    let path = format!("/proc/{pid}/exe");
    let (found, own) = (fs::metadata(&path).unwrap(), fs::metadata("/proc/self/exe").unwrap());
    assert_ne!((found.dev(), found.ino()), (own.dev(), own.ino()), "{path}");
    let held = File::options().read(true).custom_flags(libc::O_PATH).open(&path).unwrap();
    let again = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&held));
    let opened = File::options().append(true).open(again);
    let why = Errno::from_raw(opened.unwrap_err().raw_os_error().unwrap());
    // Sealed memory that nobody executes can be opened, and takes no byte.
    assert!(matches!(why, Errno::EROFS | Errno::ETXTBSY | Errno::EPERM), "{path}: {why}");
}

/// A script that says `out` wherever a path through a descriptor leads to a file of the host.
fn search(marker: &Path) -> String {
    let up = "../".repeat(12);
    format!(
        "for f in /proc/[0-9]*/fd/* /proc/[0-9]*/cwd; do \
        [ -e $f/{up}{marker} ] && echo out $f; done 2>/dev/null",
        marker = marker.display()
    )
}

cases! {
    async fn runtime_exe_of_a_waiting_init_is_out_of_reach(bench: &Bench) {
        // While init waits it is still the shim's program: nobody inside may open it.
        let made = Made::script("true");
        let mut running = made.create(bench).await.unwrap();
        let look = "ls -l /proc/1/exe 2>&1; cat /proc/1/exe > /dev/null 2>&1 && echo open; \
            echo x > /proc/1/exe; ls /proc/1/fd 2>&1; cat /proc/1/environ 2>&1 | wc -c; true";
        let (printed, _) = running.exec_output(&["/bin/sh", "-c", look]).await;
        assert!(!printed.contains("open\n"), "{printed}");
        assert!(printed.contains("can't create /proc/1/exe: Permission denied"), "{printed}");
        running.container.delete().await.unwrap();
        running.wait().await;
    }

    async fn runtime_exe_of_stem_and_init_is_a_file_that_nobody_writes(bench: &Bench) {
        assert_sealed(host::stem());
        let mut running = tracer(Made::command(&["/bin/sleep", "1000"])).create(bench).await.unwrap();
        let init = running.init.as_ref().unwrap().pid.raw();
        assert_sealed(init);
        // With the right to trace it, the container gets as far as the seal.
        let script = "exec 3< /proc/1/exe && echo held; (: >> /proc/self/fd/3) 2>/dev/null && echo written; true";
        let (printed, _) = running.exec_output(&["/bin/sh", "-c", script]).await;
        assert!(!printed.contains("written"), "{printed}");
        running.container.start().await.unwrap();
        let busybox = fs::read_link(format!("/proc/{init}/exe")).unwrap();
        assert!(busybox.ends_with("busybox"), "{busybox:?}");
        running.end_quietly().await;
    }

    async fn runtime_exe_as_an_entry_point_is_not_written(bench: &Bench) {
        let before = fs::read(std::env::current_exe().unwrap()).unwrap();
        let made = tracer(Made::command(&["/bin/self"]));
        let file = made.rootfs().join("bin/self");
        fs::write(&file, "#!/proc/self/exe\n").unwrap();
        fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).unwrap();
        // It would be the shim again, inside; the kernel runs it, it finds no socket and ends.
        if let Ok(mut running) = made.create(bench).await {
            let _ = running.container.start().await;
            running.end_quietly().await;
        }
        let script = "while :; do for p in /proc/[0-9]*; do case \"$(readlink $p/exe)\" in \
            ''|/bin/busybox) ;; *) (exec 3< $p/exe && for i in 1 2 3; do \
            (: >> /proc/self/fd/3) && echo written; done) ;; esac; done; done 2>/dev/null";
        let made = Made { spec: tracer(Made::script(script)).spec, ..made };
        let mut running = made.create(bench).await.unwrap();
        running.container.start().await.unwrap();
        for _ in 0..10 {
            if let Ok((started, output)) = running.exec("e", &["/bin/self"]).await {
                started.exit.await;
                drop(output);
            }
        }
        running.container.kill(Target::Init, Signal::KILL).await.unwrap();
        running.wait().await;
        assert_eq!(running.printed(), "");
        running.container.delete().await.unwrap();
        assert!(fs::read(std::env::current_exe().unwrap()).unwrap() == before, "it has changed");
    }

    async fn leaked_file_is_no_working_directory(bench: &Bench) {
        let marker = tempfile::tempdir_in("/run").unwrap();
        let look = format!("[ -e ./{}{} ] && echo out; true", "../".repeat(12), marker.path().display());
        let running = Made::command(&["/bin/sleep", "1000"]).create(bench).await.unwrap();
        running.container.start().await.unwrap();
        for number in 3..24 {
            let magic = format!("/proc/self/fd/{number}");
            for cwd in [magic.as_str(), "/work"] {
                let made = Made::script(&look).with(|spec| spec["process"]["cwd"] = cwd.into());
                symlink(&magic, made.rootfs().join("work")).unwrap();
                if let Ok(mut running) = made.create(bench).await {
                    running.container.start().await.unwrap();
                    running.wait().await;
                    assert_eq!(running.printed(), "", "{cwd}");
                    running.container.delete().await.unwrap();
                }
            }
            let mut one = process(&["/bin/sh", "-c", &look]);
            one["cwd"] = magic.clone().into();
            if let Ok((started, output)) = running.exec_process("e", one).await {
                started.exit.await;
                assert_eq!(read_all(output), "", "{magic}");
            }
        }
        running.end().await;
    }

    async fn leaked_file_of_an_exec_is_not_seen(bench: &Bench) {
        let marker = tempfile::tempdir_in("/run").unwrap();
        for may_trace in [false, true] {
            let made = Made::script(&format!("while :; do {}; done", search(marker.path())));
            let made = if may_trace { tracer(made) } else { made };
            let mut running = made.create(bench).await.unwrap();
            running.container.start().await.unwrap();
            add_many(&running).await;
            running.container.kill(Target::Init, Signal::KILL).await.unwrap();
            running.wait().await;
            assert_eq!(running.printed(), "");
            running.container.delete().await.unwrap();
        }
    }

    async fn leaked_file_of_an_exec_is_not_seen_by_one_that_may_more(bench: &Bench) {
        let marker = tempfile::tempdir_in("/run").unwrap();
        let mut running = Made::command(&["/bin/sleep", "1000"]).create(bench).await.unwrap();
        running.container.start().await.unwrap();
        let script = format!("while :; do {}; done", search(marker.path()));
        let mut watcher = process(&["/bin/sh", "-c", &script]);
        add_tracing(&mut watcher);
        let (watcher, seen) = running.exec_process("w", watcher).await.unwrap();
        add_many(&running).await;
        running.container.kill(Target::Init, Signal::KILL).await.unwrap();
        watcher.exit.await;
        running.wait().await;
        assert_eq!(read_all(seen), "");
        running.container.delete().await.unwrap();
    }

    async fn leaked_file_of_the_shim_does_not_reach_a_program(bench: &Bench) {
        // What a library has opened, and not marked as close-on-exec, before the stem is made.
        let host = File::open("/run").unwrap();
        let leak = nix::unistd::dup(&host).unwrap();
        let (bench, stem) = super::another(bench).await;
        let made = Made::command(&["/bin/ls", "-l", "/proc/self/fd"]);
        let printed = made.output(&bench).await;
        assert!(!printed.contains("/run"), "{printed}");
        assert_eq!(printed.matches(" -> ").count(), 3, "{printed}");
        drop(leak);
        drop(bench);
        nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(stem), None).unwrap();
    }
}
