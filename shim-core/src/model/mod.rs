//! The nouns of the contract, parsed once at the edge.

mod bundle;
mod exit;
mod group;
mod id;
mod mount;
mod platform;
mod process;
mod signal;
mod stats;
mod stdio;

pub use bundle::Bundle;
pub use exit::{Exit, ExitStatus};
pub use group::{Group, Sharing};
pub use id::{ContainerId, ExecId, InvalidId, Namespace};
pub use mount::Mount;
pub use platform::Platform;
pub use process::{About, Pid, RuntimeOptions, WindowSize};
pub use signal::Signal;
pub use stats::*;
pub use stdio::{LogBinary, LogProtocol, SocketStream, StdioPlace, StdioUri, StdioUris};
