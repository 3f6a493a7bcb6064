//! The verbs that save a container and make it again: checkpoint, restore.

use std::path::PathBuf;

use shim_core::{Checkpoint as Asked, Context, Error, Result, model::Bundle};
use shim_runc::runtime::{self, Allowed, Console, Extra};

use crate::{
    cli::{Global, unsupported},
    session::{Terminal, Ties, attend},
    signals::Caught,
};

/// Flags of both: what CRIU may save and restore. criu(8) explains them.
#[derive(Debug, clap::Args)]
struct Shared {
    /// The directory of the checkpoint
    #[arg(long, value_name = "DIR", default_value = "checkpoint")]
    image_path: PathBuf,
    /// Where CRIU works and logs
    #[arg(long, value_name = "DIR")]
    work_path: Option<PathBuf>,
    /// TCP connections that are established, too
    #[arg(long)]
    tcp_established: bool,
    /// Unix sockets that lead out of the container, too
    #[arg(long)]
    ext_unix_sk: bool,
    /// A terminal that is the caller's own, too
    #[arg(long)]
    shell_job: bool,
    /// File locks, too
    #[arg(long)]
    file_locks: bool,
    /// What becomes of cgroups: soft, full, strict, ignore
    #[arg(long, value_name = "MODE", default_value = "soft")]
    manage_cgroups_mode: String,
    /// Make a namespace, and neither save nor restore it: network
    #[arg(long, value_name = "NAMESPACE")]
    empty_ns: Vec<String>,
    /// Take memory out of the checkpoint that it is in once more
    #[arg(long)]
    auto_dedup: bool,
    /// Not offered: memory that comes when it is needed
    #[arg(long)]
    lazy_pages: bool,
    /// The container's name
    id: String,
}

impl Shared {
    fn check(&self) -> Result<()> {
        if self.lazy_pages {
            return Err(unsupported("--lazy-pages (memory is saved and restored at once)"));
        }
        Ok(())
    }

    fn image(&self) -> Result<PathBuf> {
        std::path::absolute(&self.image_path).context("find the checkpoint")
    }

    fn work(&self) -> Result<Option<PathBuf>> {
        let path = self.work_path.as_ref().filter(|path| !path.as_os_str().is_empty());
        path.map(std::path::absolute).transpose().context("find the work path")
    }
}

/// Save a running container, which ends with that
#[derive(Debug, clap::Args)]
pub(crate) struct Checkpoint {
    #[command(flatten)]
    shared: Shared,
    /// An earlier checkpoint that this one builds on, relative to the image path
    #[arg(long, value_name = "DIR")]
    parent_path: Option<PathBuf>,
    /// Let it run on
    #[arg(long)]
    leave_running: bool,
    /// Leave out TCP connections that are not established yet
    #[arg(long)]
    tcp_skip_in_flight: bool,
    /// Give files that are open and have no name one
    #[arg(long)]
    link_remap: bool,
    /// Save memory alone, for a checkpoint that builds on it
    #[arg(long)]
    pre_dump: bool,
    /// Not offered: a server that takes the memory
    #[arg(long, value_name = "ADDRESS:PORT")]
    page_server: Option<String>,
    /// Not offered: a file that tells when a page server is ready
    #[arg(long, value_name = "FD", hide = true)]
    status_fd: Option<i32>,
}

impl Checkpoint {
    pub(crate) async fn run(&self, global: &Global) -> Result<u8> {
        let shared = &self.shared;
        shared.check()?;
        if self.page_server.is_some() || self.status_fd.is_some() {
            return Err(unsupported("--page-server (memory is saved to files)"));
        }
        let asked = Asked {
            path: shared.image()?,
            exit: !self.leave_running,
            open_tcp: shared.tcp_established,
            external_unix_sockets: shared.ext_unix_sk,
            terminal: shared.shell_job,
            file_locks: shared.file_locks,
            empty_namespaces: shared.empty_ns.clone(),
            cgroups_mode: Some(shared.manage_cgroups_mode.clone()),
            work_path: shared.work()?,
            parent_path: self.parent_path.clone(),
        };
        let extra = Extra {
            is_before: self.pre_dump,
            link_remap: self.link_remap,
            auto_dedup: shared.auto_dedup,
            tcp_skip_in_flight: self.tcp_skip_in_flight,
        };
        Box::pin(global.runtime()?.checkpoint(&shared.id, &asked, extra)).await.map(|()| 0)
    }
}

/// Make a container from a checkpoint, and stay with it until it ends
#[derive(Debug, clap::Args)]
pub(crate) struct Restore {
    #[command(flatten)]
    shared: Shared,
    /// The bundle: a directory with a config.json
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    bundle: PathBuf,
    #[command(flatten)]
    ties: Ties,
    /// Leave it alone once it runs
    #[arg(short, long)]
    detach: bool,
    /// What its processes are confined by: apparmor:PROFILE or selinux:LABEL
    #[arg(long, value_name = "KIND:NAME")]
    lsm_profile: Option<String>,
    /// The SELinux context of its mounts
    #[arg(long, value_name = "CONTEXT")]
    lsm_mount_context: Option<String>,
    /// Accepted for callers of runc; CRIU changes the root
    #[arg(long, hide = true)]
    no_pivot: bool,
    /// Accepted for callers of runc; there is no subreaper
    #[arg(long, hide = true)]
    no_subreaper: bool,
}

impl Restore {
    pub(crate) async fn run(&self, global: &Global) -> Result<u8> {
        let shared = &self.shared;
        shared.check()?;
        let wanted = runtime::Create {
            bundle: Bundle::new(std::path::absolute(&self.bundle)?)?,
            cgroups: global.cgroups(),
            console: self.ties.console(!self.detach),
            no_pivot_root: self.no_pivot,
            no_new_keyring: false,
            supervisor: Global::supervisor()?,
        };
        if !self.detach && matches!(wanted.console, Console::Socket(_)) {
            return Err(Error::invalid("a console socket is for a container that is left alone"));
        }
        let from = runtime::Restore {
            image: shared.image()?,
            work: shared.work()?,
            allowed: Allowed {
                open_tcp: shared.tcp_established,
                external_unix_sockets: shared.ext_unix_sk,
                terminal: shared.shell_job,
                file_locks: shared.file_locks,
                auto_dedup: shared.auto_dedup,
                empty_namespaces: shared.empty_ns.clone(),
                cgroups_mode: Some(shared.manage_cgroups_mode.clone()),
                lsm_mount_context: self.lsm_mount_context.clone(),
            },
            lsm_profile: self.lsm_profile.clone(),
        };
        // From here on a signal is the container's.
        let caught = (!self.detach).then(Caught::begin).transpose().context("catch signals")?;
        let mut running = global.runtime()?.restore(&shared.id, &wanted, &from).await?;
        let stayed = self.stay(&mut running, caught).await;
        if matches!(stayed, Ok(None)) {
            return Ok(0);
        }
        let deleted = running.delete().await;
        let status = stayed?.unwrap_or_default();
        // An exit status has eight bits.
        deleted.map(|()| u8::try_from(status).unwrap_or(u8::MAX))
    }

    /// Stays with the container until it ends, or leaves it alone.
    async fn stay(
        &self,
        running: &mut runtime::Running,
        caught: Option<Caught>,
    ) -> Result<Option<u32>> {
        self.ties.write_pid(running.pid)?;
        let terminal = running.terminal.take().map(Terminal::begin).transpose();
        let terminal = terminal.context("use the terminal")?;
        let Some(mut caught) = caught else { return Ok(None) };
        attend(&mut caught, running.pid, terminal, running.wait()).await.map(Some)
    }
}
