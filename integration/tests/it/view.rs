//! What a container sees of the world.

use std::fs;

use anyhow::Result;
use integration::lane::Lane;
use serde_json::json;

integration::tests![
    a_container_sees_only_its_own_processes,
    a_container_has_its_own_host_name,
    a_container_is_root_with_the_groups_of_the_image,
    a_container_is_in_the_cgroup_of_its_spec,
    devices_are_the_default_ones,
    another_device_is_refused,
    masked_paths_cannot_be_read,
    kernel_settings_are_read_only,
    a_read_only_root_cannot_be_written,
    a_bind_mount_shows_the_hosts_folder,
    a_read_only_bind_mount_cannot_be_written,
    mounts_inside_do_not_show_outside,
    limits_of_the_process_are_set,
    a_standard_stream_can_be_opened_again_by_its_path,
];

fn shell(lane: &Lane, flags: &[&str], script: &str) -> Result<String> {
    lane.output(flags, &["sh", "-c", script])
}

fn a_container_sees_only_its_own_processes(lane: &Lane) -> Result<()> {
    let pids = shell(lane, &[], "ps -o pid,args; echo; ls -d /proc/[0-9]*")?;
    let (ps, proc) = pids.split_once("\n\n").unwrap_or_default();
    assert!(ps.lines().nth(1).is_some_and(|line| line.trim().starts_with("1 ")), "{ps}");
    // The shell, and the program that lists unless it is the shell's last.
    assert!(proc.starts_with("/proc/1\n") && proc.lines().count() <= 2, "{proc}");
    Ok(())
}

fn a_container_has_its_own_host_name(lane: &Lane) -> Result<()> {
    let output = lane.run_spec(&["hostname"], |spec| spec.set("/hostname", json!("inside")))?;
    assert_eq!(output.stdout, "inside\n", "{}", output.stderr);
    Ok(())
}

fn a_container_is_root_with_the_groups_of_the_image(lane: &Lane) -> Result<()> {
    assert!(shell(lane, &[], "id")?.starts_with("uid=0(root) gid=0(root)"));
    let user = json!({ "uid": 1000, "gid": 1000, "additionalGids": [2000, 3000] });
    let output = lane
        .run_spec(&["sh", "-c", "id -u; id -g; id -G"], |spec| spec.set("/process/user", user))?;
    assert_eq!(output.stdout, "1000\n1000\n1000 2000 3000\n", "{}", output.stderr);
    Ok(())
}

fn a_container_is_in_the_cgroup_of_its_spec(lane: &Lane) -> Result<()> {
    let container = lane.sleeper(&[])?;
    let text = fs::read_to_string(format!("/proc/{}/cgroup", container.pid()?))?;
    let expect = format!("/{}/{}", lane.mark(), container.id());
    for controller in ["memory", "pids", "cpu", "devices", "freezer"] {
        let line = text.lines().find(|line| line.contains(&format!(":{controller}")));
        let found = line.or_else(|| text.lines().find(|line| line.starts_with("0::")));
        assert!(found.is_some_and(|line| line.ends_with(&expect)), "{controller}: {text}");
    }
    container.remove()?;
    Ok(())
}

fn devices_are_the_default_ones(lane: &Lane) -> Result<()> {
    // A link to the kernel's memory is there only if the machine shows it.
    let names = shell(lane, &[], "ls /dev | grep -vx core | xargs")?;
    let expect = "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero\n";
    assert_eq!(names, expect);
    let numbers =
        shell(lane, &[], "cd /dev; stat -c '%a %F %t:%T' null zero full random urandom tty")?;
    let expect = ["1:3", "1:5", "1:7", "1:8", "1:9", "5:0"];
    let expect = expect.map(|number| format!("666 character special file {number}"));
    assert_eq!(numbers.lines().collect::<Vec<_>>(), expect);
    let links = shell(lane, &[], "cd /dev; echo x > null && readlink fd && readlink ptmx")?;
    assert_eq!(links, "/proc/self/fd\npts/ptmx\n");
    Ok(())
}

fn another_device_is_refused(lane: &Lane) -> Result<()> {
    // The kernel's log: with both capabilities it is only the cgroup that stands in the way.
    let script = "mknod /tmp/k c 1 11 && (exec 3< /tmp/k) 2>&1; true";
    let output = shell(lane, &["--cap-add", "CAP_SYSLOG"], script)?;
    assert!(output.contains("Operation not permitted"), "{output}");
    Ok(())
}

fn masked_paths_cannot_be_read(lane: &Lane) -> Result<()> {
    let script = "cat /proc/keys /proc/timer_list /proc/sched_debug 2>/dev/null;
        ls -A /proc/scsi /sys/firmware /proc/acpi 2>/dev/null | grep -v ':$' | grep .; echo end";
    assert_eq!(shell(lane, &[], script)?, "end\n");
    assert!(!fs::read_to_string("/proc/keys")?.is_empty(), "there is nothing to mask here");
    Ok(())
}

fn kernel_settings_are_read_only(lane: &Lane) -> Result<()> {
    // Opened, never written: the machine is not to suffer from a faulty shim.
    let script =
        "for f in /proc/sys/kernel/panic /proc/sys/vm/swappiness /proc/irq/default_smp_affinity
        do (: >> $f) 2>&1 | grep -q Read-only || echo $f; done; mkdir /sys/fs/x 2>&1; true";
    let output = shell(lane, &[], script)?;
    assert!(output.starts_with("mkdir") && output.contains("Read-only"), "{output}");
    Ok(())
}

fn a_read_only_root_cannot_be_written(lane: &Lane) -> Result<()> {
    let output = shell(lane, &["--read-only"], "touch /x 2>&1; touch /dev/shm/x && echo shm")?;
    assert!(output.contains("Read-only file system") && output.ends_with("shm\n"), "{output}");
    Ok(())
}

fn a_bind_mount_shows_the_hosts_folder(lane: &Lane) -> Result<()> {
    let folder = lane.folder()?;
    fs::write(folder.join("in"), "from outside\n")?;
    let mount = format!("type=bind,src={},dst=/mnt/deep,options=rbind:rw", folder.path().display());
    let script = "cat /mnt/deep/in; echo from inside > /mnt/deep/out";
    assert_eq!(shell(lane, &["--mount", &mount], script)?, "from outside\n");
    assert_eq!(fs::read_to_string(folder.join("out"))?, "from inside\n");
    Ok(())
}

fn a_read_only_bind_mount_cannot_be_written(lane: &Lane) -> Result<()> {
    let folder = lane.folder()?;
    fs::write(folder.join("in"), "from outside\n")?;
    let file = folder.join("in");
    let mount = format!("type=bind,src={file},dst=/etc/config,options=rbind:ro");
    let script = "cat /etc/config; (echo x > /etc/config) 2>&1; true";
    let output = shell(lane, &["--mount", &mount], script)?;
    assert!(output.starts_with("from outside\n") && output.contains("Read-only"), "{output}");
    assert_eq!(fs::read_to_string(file)?, "from outside\n");
    Ok(())
}

fn mounts_inside_do_not_show_outside(lane: &Lane) -> Result<()> {
    let folder = lane.folder()?;
    let mount = format!("type=bind,src={},dst=/mnt,options=rbind:rw", folder.path().display());
    let flags = ["--mount", mount.as_str(), "--cap-add", "CAP_SYS_ADMIN"];
    let script = "mount -t tmpfs none /mnt && touch /mnt/inside && ls /mnt";
    assert_eq!(shell(lane, &flags, script)?, "inside\n");
    assert!(!folder.path().join("inside").exists());
    Ok(())
}

fn limits_of_the_process_are_set(lane: &Lane) -> Result<()> {
    let limits = json!([
        { "type": "RLIMIT_NOFILE", "soft": 500, "hard": 600 },
        { "type": "RLIMIT_CORE", "soft": 0, "hard": 4096 },
    ]);
    let script = "ulimit -Sn; ulimit -Hn; grep core /proc/self/limits";
    let output =
        lane.run_spec(&["sh", "-c", script], |spec| spec.set("/process/rlimits", limits))?;
    let words: Vec<_> = output.stdout.split_whitespace().collect();
    let expect = ["500", "600", "Max", "core", "file", "size", "0", "4096", "bytes"];
    assert_eq!(words, expect, "{}", output.stderr);
    Ok(())
}

fn a_standard_stream_can_be_opened_again_by_its_path(lane: &Lane) -> Result<()> {
    assert_eq!(shell(lane, &[], "echo again > /dev/stdout")?, "again\n");
    Ok(())
}
