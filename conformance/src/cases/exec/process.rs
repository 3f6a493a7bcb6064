//! What an added process finds: its user, folder, variables, limits, and no more descriptors.

use anyhow::{Result, ensure};
use serde_json::json;
use shim_client::{ExecChange, Shape, User, exec_process};
use shim_protos::protobuf::MessageField;

use crate::case::group;
use crate::expect;
use crate::lab::{ExecIo, Lab, SLEEP, process_any};

group! { "exec":
    Must user: "An exec MUST run as the user and groups of its own spec.";
    Must folder: "An exec MUST run in the working directory of its own spec.";
    Must environment: "An exec MUST have the variables of its own spec and none else.";
    Must limits: "An exec MUST have the resource limits of its own spec.";
    Must capabilities: "An exec MUST have the capabilities of its own spec and none else.";
    Must descriptors: "An exec MUST NOT inherit descriptors beyond its three streams.";
    Must namespaces: "An exec MUST be in the container's namespaces and cgroup.";
    Must every_legal_id: "Every id that containerd allows MUST be allowed for an exec.";
}

async fn user(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    let user = User { uid: 1234, gid: 2345, additional_gids: vec![77, 88] };
    let change = ExecChange { user: Some(user), ..ExecChange::default() };
    let ended = lab.shell_as(&guest, "id -u; id -g; id -G", change).await?;
    let expected = "1234\n2345\n2345 77 88\n";
    let is = ended.stdout == expected && ended.stderr.is_empty();
    ensure!(is, "expected the ids {expected:?}, got {ended:?}");
    Ok(())
}

async fn folder(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    let change = ExecChange { cwd: Some("/usr/share".to_owned()), ..ExecChange::default() };
    let ended = lab.shell_as(&guest, "pwd -P", change).await?;
    ensure!(ended.stdout == "/usr/share\n", "expected /usr/share, got {ended:?}");
    Ok(())
}

async fn environment(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    let env = vec!["PATH=/usr/bin:/bin".to_owned(), "COLOUR=pale green".to_owned()];
    let change = ExecChange { env, ..ExecChange::default() };
    // Not by env(1), which shows what the shell has added.
    let ended = lab.shell_as(&guest, "tr '\\0' '\\n' < /proc/$$/environ | sort", change).await?;
    let mut lines: Vec<&str> = ended.stdout.lines().collect();
    // Runtimes add the home of the user, as containerd's own does.
    lines.retain(|line| !line.starts_with("HOME="));
    let expected = ["COLOUR=pale green", "PATH=/usr/bin:/bin"];
    ensure!(lines == expected, "expected the variables {expected:?}, got {ended:?}");
    Ok(())
}

async fn limits(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    let io = ExecIo::open(lab, "limits", Shape::Pipes)?;
    let args = ["/bin/sh", "-c", "ulimit -Sn; ulimit -Hn"].map(str::to_owned).to_vec();
    let mut process = exec_process(&guest.spec, &ExecChange { args, ..ExecChange::default() });
    process["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 333, "hard": 444 }]);
    let answer = guest.exec_with("limits", &[], |request| {
        io.fill(request);
        request.spec = MessageField::some(process_any(&process));
    });
    answer.await?;
    guest.start("limits").await?;
    guest.expect_exit("limits", 0).await?;
    guest.delete("limits").await?;
    let [stdout, _] = io.finish().await;
    ensure!(stdout == "333\n444\n", "expected limits of 333 and 444 files, got {stdout:?}");
    Ok(())
}

async fn capabilities(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    let io = ExecIo::open(lab, "caps", Shape::Pipes)?;
    let script = "grep -E '^Cap(Prm|Eff|Bnd)' /proc/self/status";
    let args = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    let mut process = exec_process(&guest.spec, &ExecChange { args, ..ExecChange::default() });
    let only = json!(["CAP_KILL"]);
    process["capabilities"] = json!({ "bounding": only, "effective": only, "permitted": only });
    let answer = guest.exec_with("caps", &[], |request| {
        io.fill(request);
        request.spec = MessageField::some(process_any(&process));
    });
    answer.await?;
    guest.start("caps").await?;
    guest.expect_exit("caps", 0).await?;
    guest.delete("caps").await?;
    let [stdout, _] = io.finish().await;
    let sets: Vec<&str> = stdout.lines().filter_map(|line| line.split('\t').nth(1)).collect();
    // The fifth capability, which is CAP_KILL, and no other.
    let kill = "0000000000000020";
    ensure!(sets == [kill; 3], "expected CAP_KILL alone, got {stdout:?}");
    Ok(())
}

async fn descriptors(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    let ended = lab.shell(&guest, "ls /proc/$$/fd; true").await?;
    let open: Vec<&str> = ended.stdout.split_whitespace().collect();
    // The shell may keep one of its own, from ten up.
    let extra = |fd: &&&str| fd.parse::<u32>().is_ok_and(|fd| (3..10).contains(&fd));
    ensure!(open.starts_with(&["0", "1"]), "no streams: {ended:?}");
    ensure!(open.iter().find(extra).is_none(), "descriptors beyond the three: {ended:?}");
    Ok(())
}

async fn namespaces(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    let script = "
        for kind in pid ipc uts mnt net; do readlink /proc/self/ns/$kind /proc/1/ns/$kind; done
        cut -d: -f2- /proc/self/cgroup | md5sum; cut -d: -f2- /proc/1/cgroup | md5sum";
    let ended = lab.shell(&guest, script).await?;
    let lines: Vec<&str> = ended.stdout.lines().collect();
    ensure!(lines.len() == 12, "expected 12 lines, got {ended:?}");
    for pair in lines.chunks(2) {
        ensure!(pair[0] == pair[1], "the exec is in {}, the init process in {}", pair[0], pair[1]);
    }
    Ok(())
}

async fn every_legal_id(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    let longest = "x".repeat(76);
    for exec in ["0", "A.b_c-D9", "a-b-c.d", &longest, "init", &guest.id] {
        let run = async {
            guest.started(exec, &["true"]).await?;
            guest.expect_exit(exec, 0).await?;
            guest.delete(exec).await?;
            anyhow::Ok(())
        };
        run.await.map_err(|error| error.context(format!("the exec id {exec:?}")))?;
    }
    expect::code(guest.state("0").await, ttrpc::Code::NOT_FOUND)
}
