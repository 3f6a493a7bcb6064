//! A container that runs beside the test.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::ctr::Ctr;
use crate::procs;
use crate::session::{Output, Session};
use crate::wait::{self, SOON};

/// A container and its task, by their common id.
#[derive(Debug)]
pub struct Container {
    ctr: Ctr,
    id: String,
    execs: AtomicU32,
}

impl Container {
    /// The container `id` of a daemon, which may not exist yet.
    #[must_use]
    pub fn new(ctr: &Ctr, id: &str) -> Self {
        Self { ctr: ctr.clone(), id: id.to_owned(), execs: AtomicU32::new(0) }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// `ctr task COMMAND… ID`, which has to succeed.
    ///
    /// # Errors
    /// When it fails.
    pub fn task(&self, command: &[&str]) -> Result<String> {
        self.ctr.ok(&[&["task"], command, &[&self.id]].concat())
    }

    /// The state by containerd's word, such as `RUNNING`; none without a task.
    ///
    /// # Errors
    /// When containerd does not answer.
    pub fn status(&self) -> Result<Option<String>> {
        Ok(self.row()?.map(|(_, status)| status))
    }

    /// The init process's number.
    ///
    /// # Errors
    /// When there is no task.
    pub fn pid(&self) -> Result<i32> {
        Ok(self.row()?.with_context(|| format!("no task {}", self.id))?.0)
    }

    /// Waits until the init process runs the container's program, and returns its number.
    ///
    /// A task is started a moment before its process has given up the runtime's own privileges.
    ///
    /// # Errors
    /// When it does not get there soon.
    pub fn settle(&self) -> Result<i32> {
        let pid = self.pid()?;
        wait::until(format!("the program of {}", self.id), SOON, || {
            let exe = fs::read_link(format!("/proc/{pid}/exe"))?;
            // The image has no other program, and no runtime has that name.
            ensure!(exe == Path::new("/bin/busybox"), "it is {}", exe.display());
            Ok(pid)
        })
    }

    /// The shim's process: the parent of the init process.
    ///
    /// # Errors
    /// When there is no task or it has ended.
    pub fn shim(&self) -> Result<i32> {
        procs::parent(self.pid()?)
    }

    /// Waits until the task has the given state.
    ///
    /// # Errors
    /// When it does not get there soon.
    pub fn wait_status(&self, status: &str) -> Result<()> {
        wait::until(format!("{} of {}", status, self.id), SOON, || {
            let found = self.status()?;
            ensure!(found.as_deref() == Some(status), "it is {found:?}");
            Ok(())
        })
    }

    /// Runs a program in the container, whatever its outcome.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn exec(&self, args: &[&str]) -> Result<Output> {
        self.exec_with(&[], args)
    }

    /// Runs a program in the container with flags of `ctr task exec`.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn exec_with(&self, flags: &[&str], args: &[&str]) -> Result<Output> {
        let name = self.exec_id();
        self.ctr.run(&self.exec_command(&name, flags, args))
    }

    /// Runs a program that has to succeed and to write something, and returns that.
    ///
    /// An empty output is as little proof here as with [`Lane::output`](crate::lane::Lane::output).
    ///
    /// # Errors
    /// When it fails, or its output stays empty.
    pub fn output(&self, flags: &[&str], args: &[&str]) -> Result<String> {
        wait::until(format!("the output of {args:?}"), SOON, || {
            let output = self.exec_with(flags, args)?;
            ensure!(output.status == 0, "{}: {}", output.status, output.stderr.trim());
            ensure!(!output.stdout.is_empty(), "it is empty");
            Ok(output.stdout)
        })
    }

    /// Starts a program in the container, beside the test.
    ///
    /// # Errors
    /// When `ctr` cannot be started.
    pub fn start_exec(&self, flags: &[&str], args: &[&str]) -> Result<Session> {
        let name = self.exec_id();
        self.ctr.start(&self.exec_command(&name, flags, args))
    }

    /// Starts a program in the container that outlives the client.
    ///
    /// # Errors
    /// When it does not start.
    pub fn exec_in_background(&self, args: &[&str]) -> Result<()> {
        // Without a log `ctr` makes fifos and leaves them behind.
        let output = self.exec_with(&["--detach", "--log-uri", "file:///dev/null"], args)?;
        ensure!(output.status == 0, "{args:?}: {}: {}", output.status, output.stderr.trim());
        Ok(())
    }

    /// Starts a program in the container on a terminal.
    ///
    /// # Errors
    /// When `ctr` cannot be started.
    pub fn start_exec_on_terminal(
        &self,
        args: &[&str],
        rows: u16,
        columns: u16,
    ) -> Result<Session> {
        let name = self.exec_id();
        self.ctr.start_on_terminal(&self.exec_command(&name, &["--tty"], args), rows, columns)
    }

    /// Sends a signal to the init process.
    ///
    /// # Errors
    /// When containerd refuses.
    pub fn kill(&self, signal: &str) -> Result<()> {
        self.task(&["kill", "--signal", signal]).map(drop)
    }

    /// Deletes the task once it has ended, and returns its exit status.
    ///
    /// # Errors
    /// When it does not end, or the task stays.
    pub fn delete_task(&self) -> Result<i32> {
        self.wait_status("STOPPED")?;
        let output = self.ctr.run(&["task", "delete", &self.id])?;
        let left = self.status()?;
        ensure!(left.is_none(), "{} is still {left:?}: {}", self.id, output.stderr.trim());
        // `ctr` succeeds whatever the task's own end, and only warns of it.
        ensure!(output.status == 0, "delete {}: {}", self.id, output.stderr.trim());
        let code = output.stderr.split_once("exit with non-zero exit code ");
        let digits = code.map_or("0", |(_, rest)| {
            rest.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default()
        });
        Ok(digits.parse()?)
    }

    /// Deletes the container, which has no task any more.
    ///
    /// # Errors
    /// When containerd refuses.
    pub fn delete(&self) -> Result<()> {
        self.ctr.ok(&["container", "delete", &self.id]).map(drop)
    }

    /// Deletes what containerd still knows of it after its shim's death, as a client would.
    ///
    /// # Errors
    /// When the task neither ends nor goes.
    pub fn forget(&self) -> Result<()> {
        wait::until("the end of the task", SOON, || {
            let status = self.status()?;
            if status.as_deref() == Some("STOPPED") {
                self.delete_task()?;
            }
            ensure!(status.is_none(), "it is {status:?}");
            Ok(())
        })?;
        self.delete()
    }

    /// Kills, deletes and forgets, and returns the exit status.
    ///
    /// # Errors
    /// When any of that fails.
    pub fn remove(&self) -> Result<i32> {
        self.kill("KILL")?;
        self.finish()
    }

    /// Waits for the end, deletes and forgets, and returns the exit status.
    ///
    /// # Errors
    /// When any of that fails.
    pub fn finish(&self) -> Result<i32> {
        let status = self.delete_task()?;
        self.delete()?;
        Ok(status)
    }

    fn exec_id(&self) -> String {
        format!("e{}", self.execs.fetch_add(1, Ordering::Relaxed))
    }

    fn exec_command<'a>(
        &'a self,
        name: &'a str,
        flags: &[&'a str],
        args: &[&'a str],
    ) -> Vec<&'a str> {
        let head = ["task", "exec", "--exec-id", name];
        [&head, flags, &[&self.id], args].concat()
    }

    /// The task's line in `ctr task ls`: id, pid, status.
    fn row(&self) -> Result<Option<(i32, String)>> {
        let table = self.ctr.ok(&["task", "list"])?;
        let row = table.lines().find_map(|line| {
            let mut fields = line.split_whitespace();
            (fields.next()? == self.id).then(|| fields.collect::<Vec<_>>())
        });
        let Some(row) = row else { return Ok(None) };
        let [pid, status] = row[..] else { anyhow::bail!("odd row: {row:?}") };
        Ok(Some((pid.parse()?, status.to_owned())))
    }
}

/// How long a container's program may take to write something.
pub const PROMPT: Duration = Duration::from_secs(20);
