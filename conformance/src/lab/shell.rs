//! Added processes with streams, from the Exec to the last byte.

use anyhow::Result;
use shim_client::{ExecChange, Shape, exec_process};
use shim_protos::protobuf::MessageField;

use super::calls::process_any;
use super::{ExecIo, Guest, Lab};

/// What came of an added process.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: u32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Lab {
    /// Runs a script of the shell to its end, as an added process.
    pub(crate) async fn shell(&self, guest: &Guest, script: &str) -> Result<Ended> {
        self.shell_as(guest, script, ExecChange::default()).await
    }

    /// The same for a process that differs from the container's first.
    pub(crate) async fn shell_as(
        &self,
        guest: &Guest,
        script: &str,
        change: ExecChange,
    ) -> Result<Ended> {
        let exec = self.name("shell");
        let io = self.shell_begun(guest, &exec, script, change).await?;
        let status = guest.wait(&exec).await?.exit_status;
        guest.delete(&exec).await?;
        let [stdout, stderr] = io.finish().await;
        Ok(Ended { status, stdout, stderr })
    }

    /// Starts a script of the shell as the added process of that id.
    pub(crate) async fn shell_begun(
        &self,
        guest: &Guest,
        exec: &str,
        script: &str,
        mut change: ExecChange,
    ) -> Result<ExecIo> {
        let shape = if change.terminal { Shape::Terminal } else { Shape::Pipes };
        let io = ExecIo::open(self, exec, shape)?;
        change.args = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        let process = exec_process(&guest.spec, &change);
        guest
            .exec_with(exec, &[], |request| {
                io.fill(request);
                request.terminal = change.terminal;
                request.spec = MessageField::some(process_any(&process));
            })
            .await?;
        guest.start(exec).await?;
        Ok(io)
    }
}
