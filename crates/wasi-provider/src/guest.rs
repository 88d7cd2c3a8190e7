//! What a guest sees: its arguments, environment, files and outputs, and nothing else.

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coracle_lifecycle::{ContainerSpec, Mount, Port, Protocol, StartError};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use wasmtime::component::ResourceTable;
use wasmtime_wasi::filesystem::WasiFilesystemCtx;
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::inspect::Kind;
use crate::lines::Channel;
use crate::log::Log;
use crate::network::{Entrance, GuestNetwork, Held, Listener};
use crate::outgoing::Outgoing;
use crate::output::Output;
use crate::room::Room;
use crate::sockets::Sockets;
use crate::usage::Limiter;

/// The state of a store: a guest's world, and the limiter that holds it to its memory.
pub(crate) struct Guest<W> {
    pub(crate) world: W,
    pub(crate) limiter: Limiter,
}

/// The world of a wasip1 module.
pub(crate) type ModuleGuest = Guest<ModuleWorld>;

pub(crate) struct ModuleWorld {
    pub(crate) wasi: WasiP1Ctx,
    pub(crate) sockets: Sockets,
}

impl ModuleWorld {
    pub(crate) fn new(mut world: World, are_sockets_nonblocking: bool) -> Self {
        let sockets = Sockets::new(&world.listeners, are_sockets_nonblocking);
        Self { wasi: world.context.build_p1(), sockets }
    }
}

/// The world of a component.
pub(crate) type ComponentGuest = Guest<ComponentWorld>;

pub(crate) struct ComponentWorld {
    context: WasiCtx,
    http: WasiHttpCtx,
    outgoing: Outgoing,
    resources: ResourceTable,
    pub(crate) sockets: Arc<Held>,
    pub(crate) network: Arc<GuestNetwork>,
}

impl ComponentWorld {
    pub(crate) fn new(mut world: World) -> Self {
        Self {
            context: world.context.build(),
            http: WasiHttpCtx::new(),
            outgoing: world.outgoing,
            resources: ResourceTable::new(),
            sockets: world.held,
            network: world.network,
        }
    }

    /// With these directories in the place of its own.
    pub(crate) fn over(mut self, files: &WasiFilesystemCtx) -> Self {
        *self.context.filesystem() = files.clone();
        self
    }
}

/// What a guest will see, before it is known what kind of guest it is.
pub(crate) struct World {
    pub(crate) context: WasiCtxBuilder,
    pub(crate) network: Arc<GuestNetwork>,
    /// The sockets that it makes itself.
    pub(crate) held: Arc<Held>,
    pub(crate) outgoing: Outgoing,
    /// The listening sockets that a module finds open.
    pub(crate) listeners: Vec<Arc<Listener>>,
}

impl WasiView for ComponentGuest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.world.context, table: &mut self.world.resources }
    }
}

impl WasiHttpView for ComponentGuest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        let ComponentWorld { http, outgoing, resources, .. } = &mut self.world;
        WasiHttpCtxView { hooks: outgoing, table: resources, ctx: http }
    }
}

/// Opens what the container sees. Its standard input is closed. To be called in the runtime that runs guests.
///
/// # Errors
/// When its root or a mount is no directory that can be opened, or an annotation says nothing that can be done.
pub(crate) fn world(
    spec: &ContainerSpec,
    kind: Kind,
    log: &Log,
    room: &Arc<Room>,
    entrance: &Arc<Entrance>,
) -> Result<World, StartError> {
    let network = GuestNetwork::new(spec, Arc::clone(entrance), room);
    let outgoing = outgoing(spec, &network, room)?;
    let mut world = surroundings(spec, kind, log, network, outgoing);
    if !entrance.listeners().is_empty() {
        hand_over(&mut world, spec, entrance)?;
    }
    open_all(&mut world.context, spec)?;
    Ok(world)
}

/// Hands listening sockets over as systemd does it, before all that is opened.
fn hand_over(world: &mut World, spec: &ContainerSpec, entrance: &Entrance) -> Result<(), StartError> {
    let ports = listening_ports(spec);
    let names: Vec<_> = ports.iter().map(|port| port.name.as_deref().unwrap_or("unknown")).collect();
    let told = [("LISTEN_FDS", ports.len().to_string()), ("LISTEN_FDNAMES", names.join(":"))];
    let own = spec.environment();
    for (name, value) in told.iter().filter(|(name, _)| !own.iter().any(|(known, _)| known == name)) {
        world.context.env(name, value);
    }
    world.listeners = entrance.listeners().to_vec();
    for _ in entrance.listeners() {
        // Keeps the socket's descriptor from being given to a file.
        open(&mut world.context, &spec.root, "/", true)?;
    }
    Ok(())
}

/// What a command beside the container's program sees: the same, but for its arguments, and as yet without streams.
///
/// # Errors
/// As [`world`].
pub(crate) fn world_beside(
    spec: &ContainerSpec,
    kind: Kind,
    command: &[String],
    room: &Arc<Room>,
) -> Result<World, StartError> {
    let network = GuestNetwork::new(spec, Arc::default(), room);
    let outgoing = outgoing(spec, &network, room)?;
    let mut world = with_arguments(spec, kind, command, network, outgoing);
    open_all(&mut world.context, spec)?;
    Ok(world)
}

/// All that the container sees but its files.
pub(crate) fn surroundings(
    spec: &ContainerSpec,
    kind: Kind,
    log: &Log,
    network: Arc<GuestNetwork>,
    outgoing: Outgoing,
) -> World {
    let mut world = with_arguments(spec, kind, &spec.command_line(), network, outgoing);
    world.context.stdout(Output::new(log, Channel::Stdout)).stderr(Output::new(log, Channel::Stderr));
    world
}

fn outgoing(
    spec: &ContainerSpec,
    network: &Arc<GuestNetwork>,
    room: &Arc<Room>,
) -> Result<Outgoing, StartError> {
    Outgoing::new(spec, network, room).map_err(|malformed| StartError::Invalid(malformed.to_string()))
}

fn with_arguments(
    spec: &ContainerSpec,
    kind: Kind,
    arguments: &[String],
    network: Arc<GuestNetwork>,
    outgoing: Outgoing,
) -> World {
    let mut context = WasiCtxBuilder::new();
    context.args(arguments).envs(&environment(spec, kind)).initial_cwd(spec.directory());
    let held = network.open(&mut context);
    World { context, network, held, outgoing, listeners: Vec::new() }
}

fn open_all(world: &mut WasiCtxBuilder, spec: &ContainerSpec) -> Result<(), StartError> {
    open(world, &spec.root, "/", spec.read_only_root)?;
    spec.mounts.iter().try_for_each(|mount| open_mount(world, mount))
}

/// Opens a mount by a path without links: whoever can write to the volume cannot lead the way elsewhere meanwhile.
fn open_mount(world: &mut WasiCtxBuilder, mount: &Mount) -> Result<(), StartError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = openat2(CWD, &mount.source, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS);
    let directory = directory.map_err(|error| {
        let (source, target) = (mount.source.display(), &mount.target);
        StartError::Invalid(format!("the directory {source} for {target} cannot be opened: {error}"))
    })?;
    let opened = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
    open(world, &opened, &mount.target, mount.read_only)
}

fn open(world: &mut WasiCtxBuilder, source: &Path, target: &str, read_only: bool) -> Result<(), StartError> {
    let permissions = if read_only { FsPerms::ReadOnly } else { FsPerms::ReadWrite };
    world.preopened_dir(source, target, permissions).map(drop).map_err(|error| {
        let (source, cause) = (source.display(), error.root_cause());
        StartError::Invalid(format!("the directory {source} for {target} cannot be opened: {cause}"))
    })
}

/// The container's environment, and what a runtime adds where the pod does not: wasip1 knows a working directory by the
/// variable `PWD` only, and a server its port by `PORT`.
fn environment(spec: &ContainerSpec, kind: Kind) -> Vec<(String, String)> {
    let mut environment = spec.environment();
    let added = match kind {
        Kind::Module => Some(("PWD", spec.directory().to_owned())),
        Kind::Server | Kind::ConcurrentServer => Some(("PORT", serving_port(spec).to_string())),
        Kind::Command | Kind::ConcurrentCommand => None,
    };
    if let Some((name, value)) = added.filter(|(name, _)| !environment.iter().any(|(known, _)| known == name))
    {
        environment.push((name.to_owned(), value));
    }
    environment
}

/// The ports on which a module finds sockets that listen: the TCP ports that its container declares, in their order.
pub(crate) fn listening_ports(spec: &ContainerSpec) -> Vec<&Port> {
    let mut ports: Vec<&Port> = Vec::new();
    for port in spec.ports.iter().filter(|port| port.protocol == Protocol::Tcp) {
        if !ports.iter().any(|known| known.number == port.number) {
            ports.push(port);
        }
    }
    ports
}

/// Where a server listens whose container declares no TCP port.
const DEFAULT_PORT: u16 = 8080;

/// The port that a server's requests come to: the first TCP port that its container declares.
pub(crate) fn serving_port(spec: &ContainerSpec) -> u16 {
    let mut ports = spec.ports.iter().filter(|port| port.protocol == Protocol::Tcp);
    ports.next().map_or(DEFAULT_PORT, |port| port.number)
}
