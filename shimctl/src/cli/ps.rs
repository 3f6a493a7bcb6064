//! `shimctl ps`: the containers there are.

use std::time::Duration;

use anyhow::Result;
use shim_client::{Record, age, now};
use shim_protos::types::Status;

use super::{Found, Global, print};

/// List containers
///
/// A container whose shim is gone shows as dead; `shimctl rm` cleans up after it.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print the ids only
    #[arg(short, long)]
    quiet: bool,
}

pub(super) async fn ps(global: &Global, arguments: &Arguments) -> Result<u8> {
    let store = global.store()?;
    let mut rows =
        vec![["ID", "PID", "STATUS", "AGE", "SHIM", "ROOTFS", "COMMAND"].map(str::to_owned)];
    for id in store.list()? {
        if arguments.quiet {
            print::line(&id)?;
            continue;
        }
        let found = Found::find(global, &store, &id);
        let status = match &found {
            Ok(found) => status(found).await,
            Err(error) => {
                log::debug!("{id}: {error:#}");
                "dead".to_owned()
            }
        };
        let record = match found {
            Ok(found) => found.record,
            Err(_) => store.load(&id)?,
        };
        rows.push(row(&record, status));
    }
    if !arguments.quiet {
        print_table(&rows)?;
    }
    Ok(0)
}

async fn status(found: &Found) -> String {
    let state = match found.connect().await {
        Ok(container) => container.state("").await.map_err(anyhow::Error::from),
        Err(error) => Err(error),
    };
    match state {
        Ok(state) => match state.status.enum_value_or_default() {
            Status::UNKNOWN => "unknown".to_owned(),
            Status::CREATED => "created".to_owned(),
            Status::RUNNING => "running".to_owned(),
            Status::STOPPED => format!("exited {}", state.exit_status),
            Status::PAUSED => "paused".to_owned(),
            Status::PAUSING => "pausing".to_owned(),
        },
        Err(error) => {
            log::debug!("{}: {error:#}", found.record.id);
            "dead".to_owned()
        }
    }
}

fn row(record: &Record, status: String) -> [String; 7] {
    let shim = record.shim.file_name().unwrap_or_default().to_string_lossy().into_owned();
    [
        record.id.clone(),
        record.pid.to_string(),
        status,
        age(Duration::from_secs(now().saturating_sub(record.created_at))),
        shim.trim_start_matches("containerd-shim-").to_owned(),
        record.rootfs.clone(),
        record.command.join(" "),
    ]
}

fn print_table(rows: &[[String; 7]]) -> Result<()> {
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    for row in rows {
        let mut text = String::new();
        for (column, cell) in row.iter().enumerate() {
            text.push_str(&format!("{cell:<width$}  ", width = width(column)));
        }
        print::line(text.trim_end())?;
    }
    Ok(())
}
