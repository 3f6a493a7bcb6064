//! QEMU's monitor: one JSON object a line, a question at a time.

use serde_json::{Value, json};
use shim_core::{Context, Error, Result};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
    sync::Mutex,
};

/// The longest line that is read.
const LINE_LIMIT: u64 = 1 << 20;

/// The monitor of one machine.
#[derive(Debug)]
pub(super) struct Monitor(Mutex<Talk>);

#[derive(Debug)]
struct Talk {
    stream: BufReader<UnixStream>,
    is_open: bool,
}

impl Monitor {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self(Mutex::new(Talk { stream: BufReader::new(stream), is_open: false }))
    }

    /// Asks QEMU to end.
    ///
    /// # Errors
    /// When it does not take that.
    pub(super) async fn quit(&self) -> Result<()> {
        self.ask("quit").await.map(drop)
    }

    /// Runs a command.
    ///
    /// # Errors
    /// What QEMU says against it, or that it is gone.
    async fn ask(&self, command: &str) -> Result<Value> {
        let mut talk = self.0.lock().await;
        if !talk.is_open {
            talk.hear("QMP").await?;
            talk.say("qmp_capabilities").await?;
            talk.is_open = true;
        }
        talk.say(command).await
    }
}

impl Talk {
    async fn say(&mut self, command: &str) -> Result<Value> {
        let line = format!("{}\n", json!({ "execute": command }));
        self.stream.write_all(line.as_bytes()).await.context("ask QEMU")?;
        self.hear("return").await.with_context(|| format!("have QEMU {command}"))
    }

    /// Reads until an object with a key, past events.
    async fn hear(&mut self, key: &str) -> Result<Value> {
        loop {
            let mut line = Vec::new();
            let mut bounded = (&mut self.stream).take(LINE_LIMIT);
            bounded.read_until(b'\n', &mut line).await.context("hear from QEMU")?;
            if line.last() != Some(&b'\n') {
                return Err(Error::other("QEMU has closed its monitor"));
            }
            let mut told: Value = serde_json::from_slice(&line).context("hear from QEMU")?;
            if let Some(error) = told.get("error") {
                let why = error["desc"].as_str().unwrap_or("no reason told").to_owned();
                return Err(Error::other(why));
            }
            if let Some(value) = told.get_mut(key) {
                return Ok(value.take());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn commands_are_answered_past_events_and_errors_are_told() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let qemu = tokio::spawn(async move {
            let mut stream = BufReader::new(theirs);
            let mut asked = Vec::new();
            stream.write_all(b"{\"QMP\": {}}\r\n").await.unwrap();
            for answer in [
                "{\"return\": {}}\r\n",
                "{\"event\": \"STOP\"}\r\n{\"return\": {}}\r\n",
                "{\"error\": {\"class\": \"GenericError\", \"desc\": \"not now\"}}\r\n",
            ] {
                let mut line = String::new();
                stream.read_line(&mut line).await.unwrap();
                asked.push(line);
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            asked
        });
        let monitor = Monitor::new(ours);
        monitor.quit().await.unwrap();
        let err = monitor.quit().await.unwrap_err();
        assert_eq!(format!("{err:#}"), "have QEMU quit: not now");
        let asked = qemu.await.unwrap();
        assert!(asked[0].contains("qmp_capabilities") && asked[1].contains("quit"), "{asked:?}");
        assert!(monitor.quit().await.is_err());
    }
}
