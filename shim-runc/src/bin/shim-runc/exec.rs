//! `exec`: adds a process to a container.

use std::path::PathBuf;

use oci_spec::runtime::{BoxBuilder, Capabilities, Process, UserBuilder};
use shim_core::{Context, Error, Result};
use shim_runc::runtime::Exec;

use crate::{
    cli::Global,
    session::{Terminal, Ties, attend, own_size},
    signals::Caught,
};

/// Run another process in a container
///
/// It gets the container's environment, user, limits and privileges, unless told otherwise; a
/// process.json says everything itself.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    ties: Ties,
    /// A file with the process in OCI terms
    #[arg(short, long, value_name = "FILE")]
    process: Option<PathBuf>,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// Leave it alone once it runs
    #[arg(short, long)]
    detach: bool,
    /// Set a variable; may be repeated
    #[arg(short, long, value_name = "KEY=VALUE")]
    env: Vec<String>,
    /// Working directory
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,
    /// User, and group, by number
    #[arg(short, long, value_name = "UID[:GID]")]
    user: Option<String>,
    /// One more group, by number; may be repeated
    #[arg(short = 'g', long, value_name = "GID", value_parser = number)]
    additional_gids: Vec<u32>,
    /// One more capability; may be repeated
    #[arg(short, long, value_name = "CAP")]
    cap: Vec<String>,
    /// Forbid new privileges
    #[arg(long)]
    no_new_privs: bool,
    /// AppArmor's profile
    #[arg(long, value_name = "PROFILE")]
    apparmor: Option<String>,
    /// SELinux's label: not offered
    #[arg(long, value_name = "LABEL")]
    process_label: Option<String>,
    /// A cgroup below the container's, which is there already; with controllers of cgroup v1 for their
    /// hierarchies alone, and may be repeated then
    #[arg(long, value_name = "[CONTROLLER,..:]PATH")]
    cgroup: Vec<String>,
    /// In a paused container, too
    #[arg(long)]
    ignore_paused: bool,
    /// The container
    id: String,
    /// What to execute
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

impl Arguments {
    pub(crate) async fn run(&self, global: &Global) -> Result<u8> {
        let runtime = global.runtime_passing(self.ties.preserve_fds)?;
        let process = match &self.process {
            Some(path) => read(path)?,
            None => self.change(runtime.process(&self.id)?)?,
        };
        let process = if self.detach { process } else { sized(process) };
        let wanted = Exec {
            process,
            console: self.ties.console(!self.detach),
            cgroups: self.cgroup.clone(),
            ignore_paused: self.ignore_paused,
        };
        let mut caught = (!self.detach).then(Caught::begin).transpose().context("catch signals")?;
        let added = runtime.exec(&self.id, wanted).await?;
        let written = self.ties.write_pid(added.pid);
        let Some(caught) = &mut caught else { return written.map(|()| 0) };
        written?;
        let exit = async { added.exit.await.status.wire() };
        let master = added.terminal.and_then(shim_core::Terminal::into_master);
        let terminal = master.map(Terminal::begin).transpose().context("use the terminal")?;
        let status = attend(caught, added.pid, terminal, exit).await?;
        // An exit status has eight bits.
        Ok(u8::try_from(status).unwrap_or(u8::MAX))
    }

    /// A process like the container's own, but for what is asked for.
    fn change(&self, mut process: Process) -> Result<Process> {
        if self.args.is_empty() {
            return Err(Error::invalid("a program has to be named, here or by --process"));
        }
        process.set_args(Some(self.args.clone()));
        process.set_terminal(Some(self.tty));
        let environment = process.env_mut().get_or_insert_default();
        environment.extend(self.env.iter().cloned());
        if let Some(cwd) = &self.cwd {
            process.set_cwd(cwd.clone());
        }
        if self.apparmor.is_some() {
            process.set_apparmor_profile(self.apparmor.clone());
        }
        if self.process_label.is_some() {
            process.set_selinux_label(self.process_label.clone());
        }
        if self.no_new_privs {
            process.set_no_new_privileges(Some(true));
        }
        self.change_user(&mut process)?;
        self.add_capabilities(&mut process)?;
        Ok(process)
    }

    fn change_user(&self, process: &mut Process) -> Result<()> {
        let mut user = process.user().clone();
        if let Some(asked) = &self.user {
            let part = |text| {
                let wrong = |_| Error::invalid(format!("user {asked:?} is not UID or UID:GID"));
                number(text).map_err(wrong)
            };
            let (uid, gid) = match asked.split_once(':') {
                Some((uid, gid)) => (part(uid)?, part(gid)?),
                None => (part(asked)?, user.gid()),
            };
            let groups = user.additional_gids().clone().unwrap_or_default();
            let fresh = UserBuilder::default().uid(uid).gid(gid).additional_gids(groups).build();
            user = fresh.map_err(|err| Error::invalid(err.to_string()))?;
        }
        let mut groups = user.additional_gids().clone().unwrap_or_default();
        groups.extend(&self.additional_gids);
        user.set_additional_gids(Some(groups));
        process.set_user(user);
        Ok(())
    }

    /// As runc: into every set but the inheritable one, and so not into the ambient one either. A user
    /// who is not root has them only by a program that has them as a file.
    fn add_capabilities(&self, process: &mut Process) -> Result<()> {
        if self.cap.is_empty() {
            return Ok(());
        }
        let mut sets = process.capabilities().clone().unwrap_or_default();
        let mut more = Capabilities::default();
        for name in &self.cap {
            // As with a spec's: what this machine does not know cannot be given away.
            match serde_json::from_value(name.clone().into()) {
                Ok(known) => drop(more.insert(known)),
                Err(_) => log::warn!("unknown capability {name:?} is left out"),
            }
        }
        let with = |set: &Option<Capabilities>| {
            Some(set.iter().flatten().chain(&more).copied().collect::<Capabilities>())
        };
        sets.set_bounding(with(sets.bounding()));
        sets.set_effective(with(sets.effective()));
        sets.set_permitted(with(sets.permitted()));
        process.set_capabilities(Some(sets));
        Ok(())
    }
}

/// An id, of digits alone: a sign, a blank or a number that is too large makes it nobody's.
fn number(text: &str) -> Result<u32, String> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    // The last number means "no id" to the kernel (setresuid(2)).
    let id = text.parse().ok().filter(|id| is_plain && *id != u32::MAX);
    id.ok_or_else(|| format!("{text:?} is no id"))
}

/// A process whose terminal is as large as ours from the start, if nothing else is said.
fn sized(mut process: Process) -> Process {
    if process.terminal() == Some(true)
        && process.console_size().is_none()
        && let Some((height, width)) = own_size()
    {
        let size = BoxBuilder::default().height(height).width(width).build();
        process.set_console_size(size.ok());
    }
    process
}

fn read(path: &std::path::Path) -> Result<Process> {
    let text = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("parse {}", path.display()))
}
