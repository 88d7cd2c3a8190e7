//! The instances of one container's server.

use std::sync::Arc;
use std::time::Duration;

use coracle_lifecycle::{ContainerSpec, StartError};
use thiserror::Error;
use tokio::time::timeout;
use wasmtime_wasi::filesystem::WasiFilesystemCtx;

use crate::guest::{World, surroundings};
use crate::log::Log;
use crate::network::GuestNetwork;
use crate::outgoing::Outgoing;
use crate::program::{Instance, Program};
use crate::room::{Place, Room};
use crate::usage::{Allowance, Limiter};

/// An instance that is not there in this time is given up: it computes before it takes requests.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// Makes instances, all within the limits of their container.
pub(crate) struct Instances {
    program: Arc<Program>,
    spec: ContainerSpec,
    log: Log,
    /// The container's directories, opened once.
    files: WasiFilesystemCtx,
    network: Arc<GuestNetwork>,
    outgoing: Outgoing,
    allowance: Allowance,
    room: Arc<Room>,
}

/// Why there is no instance.
#[derive(Debug, Error)]
pub(super) enum MakeError {
    #[error(transparent)]
    NoRoom(#[from] StartError),
    #[error("an instance was not ready within {} seconds", READY_WITHIN.as_secs())]
    Slow,
    #[error("{0:#}")]
    Failed(wasmtime::Error),
}

impl MakeError {
    /// The error of a run that cannot go on without an instance.
    pub(super) fn into_error(self) -> wasmtime::Error {
        match self {
            Self::Failed(error) => error,
            Self::NoRoom(_) | Self::Slow => self.into(),
        }
    }
}

impl Instances {
    pub(crate) fn new(
        program: Arc<Program>,
        spec: ContainerSpec,
        log: Log,
        mut world: World,
        allowance: Allowance,
        room: Arc<Room>,
    ) -> Self {
        let files = world.context.build().filesystem().clone();
        let World { network, outgoing, .. } = world;
        Self { program, spec, log, files, network, outgoing, allowance, room }
    }

    /// A fresh instance, and its room.
    pub(super) async fn make(&self) -> Result<(Instance, Place), MakeError> {
        let place = self.room.take_mappings(self.program.mappings)?;
        match timeout(READY_WITHIN, self.instantiate()).await {
            Ok(made) => made.map(|instance| (instance, place)).map_err(MakeError::Failed),
            Err(_) => Err(MakeError::Slow),
        }
    }

    /// A fresh instance, however long it takes and whatever room there is.
    pub(crate) async fn instantiate(&self) -> wasmtime::Result<Instance> {
        let (network, outgoing) = (Arc::clone(&self.network), self.outgoing.clone());
        let world = surroundings(&self.spec, self.program.kind, &self.log, network, outgoing);
        self.program.instantiate(world, &self.files, Limiter::within(&self.allowance)).await
    }
}
