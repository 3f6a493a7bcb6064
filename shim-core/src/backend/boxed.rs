//! A boxed container is a container: for backends that make more than one kind.
//!
//! Every method is passed on; one that were left out would answer that it is not supported.

use async_trait::async_trait;

use super::{Checkpoint, Container, Exec, Process, Target, Update};
use crate::{
    error::Result,
    model::{Pid, Signal, Stats},
};

#[async_trait]
impl Container for Box<dyn Container> {
    async fn start(&self) -> Result<()> {
        (**self).start().await
    }

    async fn kill(&self, target: Target<'_>, signal: Signal) -> Result<()> {
        (**self).kill(target, signal).await
    }

    async fn delete(&self) -> Result<()> {
        (**self).delete().await
    }

    async fn exec(&self, request: Exec) -> Result<Process> {
        (**self).exec(request).await
    }

    async fn pause(&self) -> Result<()> {
        (**self).pause().await
    }

    async fn resume(&self) -> Result<()> {
        (**self).resume().await
    }

    async fn update(&self, request: &Update) -> Result<()> {
        (**self).update(request).await
    }

    async fn checkpoint(&self, request: &Checkpoint) -> Result<()> {
        (**self).checkpoint(request).await
    }

    async fn restore(&self) -> Result<Process> {
        (**self).restore().await
    }

    async fn stats(&self) -> Result<Stats> {
        (**self).stats().await
    }

    async fn out_of_memory(&self) -> Result<()> {
        (**self).out_of_memory().await
    }

    async fn pids(&self) -> Result<Vec<Pid>> {
        (**self).pids().await
    }
}
