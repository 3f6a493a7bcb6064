//! The task service without a shim around it: no bootstrap, no socket, no events.

use std::{collections::HashMap, sync::Arc};

use nix::sys::prctl;
use tokio::io::{AsyncRead, AsyncWrite};
use ttrpc::r#async::Service;

use crate::{
    backend::{Backend, Host},
    error::{Context, Result},
    event::{Herald, Publisher},
    lifecycle::Shim,
    linux::{Reaper, stdio::Exchange},
    model::Namespace,
    service::{self, Server, Streaming},
};

/// The task service over a backend, for a process that containerd has not started: an agent in a virtual
/// machine, say. Connections are brought to it, and nobody is told of events.
///
/// The process is a subreaper from then on, and collects the orphans of its containers.
#[derive(Clone, Debug)]
pub struct TaskServer {
    server: Server,
}

impl TaskServer {
    /// Opens a backend and serves it, with the services of `more` beside it, by their full names. Called
    /// within a tokio runtime.
    ///
    /// # Errors
    /// What the backend says, or the kernel against a subreaper.
    pub fn new<B: Backend>(
        mut backend: B,
        namespace: Namespace,
        more: HashMap<String, Service>,
    ) -> Result<Self> {
        prctl::set_child_subreaper(true).context("become a subreaper")?;
        let host = Host { reaper: Reaper::default(), namespace };
        backend.open(host.clone())?;
        let reaper = host.reaper.clone();
        tokio::spawn(async move {
            if let Err(err) = reaper.collect_orphans().await {
                log::error!("{err:#}");
            }
        });
        let publisher = Publisher::to_nobody();
        let herald = Herald { publisher, namespace: host.namespace.clone() };
        let exchange = Exchange::default();
        let shim = Arc::new(Shim::new(backend, host, herald, exchange.clone()));
        let mut services = service::services(&shim);
        services.extend(more);
        Ok(Self { server: Server::new(services, Streaming(exchange)) })
    }

    /// Serves one connection, until its client closes it.
    pub async fn serve(&self, connection: impl AsyncRead + AsyncWrite + Send + 'static) {
        let (reader, writer) = tokio::io::split(connection);
        self.server.serve_halves(reader, writer).await;
    }
}
