//! More processes in a running container.

use anyhow::Result;
use integration::container::PROMPT;
use integration::lane::Lane;

integration::tests![
    an_exec_prints_and_its_exit_code_is_its_own,
    an_exec_reads_its_input_to_the_end,
    an_exec_runs_as_the_given_user,
    an_exec_runs_in_the_given_folder,
    an_exec_shares_the_containers_namespaces,
    an_exec_of_a_missing_program_names_it_and_the_container_lives,
    an_exec_is_killed_alone,
    a_detached_exec_is_listed,
    execs_run_side_by_side,
    an_exec_ends_with_the_container,
    an_exec_into_a_stopped_container_is_refused,
];

fn an_exec_prints_and_its_exit_code_is_its_own(lane: &Lane) -> Result<()> {
    let container = lane.sleeper(&[])?;
    assert_eq!(container.output(&[], &["echo", "hello"])?, "hello\n");
    for code in [0, 1, 42] {
        let output = container.exec(&["sh", "-c", &format!("exit {code}")])?;
        assert_eq!(output.status, code, "{}", output.stderr);
    }
    container.wait_status("RUNNING")?;
    assert_eq!(container.remove()?, 137);
    Ok(())
}

fn an_exec_reads_its_input_to_the_end(lane: &Lane) -> Result<()> {
    let container = lane.sleeper(&[])?;
    let mut session = container.start_exec(&[], &["sh", "-c", "echo ready; cat; echo end"])?;
    session.expect("ready\n", PROMPT)?;
    session.send("one\n")?;
    session.close_stdin();
    assert_eq!(session.finish(PROMPT)?.stdout, "ready\none\nend\n");
    container.remove()?;
    Ok(())
}

fn an_exec_runs_as_the_given_user(lane: &Lane) -> Result<()> {
    let container = lane.sleeper(&[])?;
    let script = "id -u; id -g";
    assert_eq!(container.output(&["--user", "worker"], &["sh", "-c", script])?, "1000\n1000\n");
    assert_eq!(container.output(&["--user", "12:34"], &["sh", "-c", script])?, "12\n34\n");
    container.remove()?;
    Ok(())
}

fn an_exec_runs_in_the_given_folder(lane: &Lane) -> Result<()> {
    let container = lane.sleeper(&[])?;
    assert_eq!(container.output(&["--cwd", "/home"], &["pwd"])?, "/home\n");
    container.remove()?;
    Ok(())
}

fn an_exec_shares_the_containers_namespaces(lane: &Lane) -> Result<()> {
    let container = lane.sleeper(&[])?;
    for kind in ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"] {
        let path = format!("ns/{kind}");
        let output = container.output(&[], &["readlink", &format!("/proc/self/{path}")])?;
        let inits = std::fs::read_link(format!("/proc/{}/{path}", container.pid()?))?;
        assert_eq!(output.trim(), inits.to_string_lossy());
    }
    container.remove()?;
    Ok(())
}

fn an_exec_of_a_missing_program_names_it_and_the_container_lives(lane: &Lane) -> Result<()> {
    let container = lane.sleeper(&[])?;
    let output = container.exec(&["/no/such/program"])?;
    assert_ne!(output.status, 0);
    assert!(output.stderr.contains("/no/such/program"), "{}", output.stderr);
    assert_eq!(container.output(&[], &["echo", "alive"])?, "alive\n");
    container.remove()?;
    Ok(())
}

fn an_exec_is_killed_alone(lane: &Lane) -> Result<()> {
    let container = lane.sleeper(&[])?;
    let session =
        container.start_exec(&["--exec-id", "mine"], &["sh", "-c", "echo ready; sleep 1000"])?;
    session.expect("ready\n", PROMPT)?;
    container.task(&["kill", "--signal", "KILL", "--exec-id", "mine"])?;
    assert_eq!(session.finish(PROMPT)?.status, 137);
    container.wait_status("RUNNING")?;
    container.remove()?;
    Ok(())
}

fn a_detached_exec_is_listed(lane: &Lane) -> Result<()> {
    let container = lane.sleeper(&[])?;
    container.exec_in_background(&["sleep", "1000"])?;
    let table = container.task(&["ps"])?;
    assert_eq!(table.lines().count(), 3, "{table}");
    container.remove()?;
    Ok(())
}

fn execs_run_side_by_side(lane: &Lane) -> Result<()> {
    let container = lane.sleeper(&[])?;
    let script = "echo ready; read line; exit $line";
    let start = |_| container.start_exec(&[], &["sh", "-c", script]);
    let mut sessions = (0..5).map(start).collect::<Result<Vec<_>>>()?;
    for session in &sessions {
        session.expect("ready\n", PROMPT)?;
    }
    // The last one first: none waits for another.
    for (code, mut session) in (10..).zip(sessions.drain(..).rev()) {
        session.send(&format!("{code}\n"))?;
        assert_eq!(session.finish(PROMPT)?.status, code);
    }
    container.remove()?;
    Ok(())
}

fn an_exec_ends_with_the_container(lane: &Lane) -> Result<()> {
    let container = lane.sleeper(&[])?;
    let session = container.start_exec(&[], &["sh", "-c", "echo ready; sleep 1000"])?;
    session.expect("ready\n", PROMPT)?;
    container.kill("KILL")?;
    assert_eq!(session.finish(PROMPT)?.status, 137);
    container.finish()?;
    Ok(())
}

fn an_exec_into_a_stopped_container_is_refused(lane: &Lane) -> Result<()> {
    let container = lane.start(&["--null-io"], &["true"])?;
    container.wait_status("STOPPED")?;
    let output = container.exec(&["echo", "hello"])?;
    assert_ne!(output.status, 0);
    assert_eq!(output.stdout, "");
    container.finish()?;
    Ok(())
}
