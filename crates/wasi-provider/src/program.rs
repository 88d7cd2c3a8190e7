//! A program that is compiled, loaded and linked: it can be started any number of times.

use std::path::Path;

use coracle_lifecycle::PrepareError;
use wasmtime::component::{Component, Linker as ComponentLinker};
use wasmtime::{Engine, ExternType, InstancePre, Linker, Module, Store};
use wasmtime_wasi::filesystem::WasiFilesystemCtx;
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi::p3::bindings::CommandPre as ConcurrentCommandPre;
use wasmtime_wasi::{I32Exit, p0, p1, p2, p3};
use wasmtime_wasi_http::handler::{Proxy, ProxyPre};
use wasmtime_wasi_http::p2::bindings::ProxyPre as ServerPre;
use wasmtime_wasi_http::p3::bindings::ServicePre as ConcurrentServerPre;

use crate::end::Verdict;
use crate::guest::{ComponentGuest, ComponentWorld, Guest, ModuleGuest, ModuleWorld, World};
use crate::inspect::{Inspected, Kind};
use crate::usage::Limiter;
use crate::{network, sockets};

/// Mappings of a container beside its memories: its fiber's stack with the guard.
const MAPPINGS_PER_GUEST: u64 = 3;
/// Mappings of a memory: what is in use and what is reserved, each once more when it begins as a mapped image.
const MAPPINGS_PER_MEMORY: u64 = 4;
/// Handles to host resources, such as open files and pending timers, of one component.
const MAX_HANDLES: usize = 10_000;
/// Bytes that one call may make the host copy.
const HOSTCALL_BYTES: usize = 64 << 20;

/// An engine with all that programs may import. Made once: to fill a linker costs more than to start a program.
pub(crate) struct Host {
    engine: Engine,
    modules: Linker<ModuleGuest>,
    components: ComponentLinker<ComponentGuest>,
}

impl Host {
    pub(crate) fn new(engine: &Engine) -> wasmtime::Result<Self> {
        Ok(Self {
            engine: engine.clone(),
            modules: module_linker(engine)?,
            components: component_linker(engine)?,
        })
    }

    /// Loads the code that this node compiled for this host's engine into `file`.
    ///
    /// # Errors
    /// When the file is not whole.
    #[expect(unsafe_code, reason = "the one place where code that this node compiled itself is loaded")]
    pub(crate) fn load(&self, kind: Kind, file: &Path) -> wasmtime::Result<Code> {
        // SAFETY: the file lies in a directory that only this user can write to, was compiled there by this program
        // for an engine of the same key, and is replaced by renaming, never changed.
        unsafe {
            match kind {
                Kind::Module => Module::deserialize_file(&self.engine, file).map(Code::Module),
                Kind::Command | Kind::ConcurrentCommand | Kind::Server | Kind::ConcurrentServer => {
                    Component::deserialize_file(&self.engine, file).map(Code::Component)
                }
            }
        }
    }

    /// Links loaded code to what this host offers.
    ///
    /// # Errors
    /// Names what the program wants and the host does not have.
    pub(crate) fn link(&self, inspected: Inspected, code: &Code) -> Result<Program, PrepareError> {
        let Inspected { kind, is_go, .. } = inspected;
        let entry =
            self.entry(kind, code).map_err(|error| PrepareError::Unsupported(format!("{error:#}")))?;
        Ok(Program { kind, is_go, mappings: code.mappings(), engine: self.engine.clone(), entry })
    }

    fn entry(&self, kind: Kind, code: &Code) -> wasmtime::Result<Entry> {
        match code {
            Code::Module(module) => {
                ensure_runs(module)?;
                self.modules.instantiate_pre(module).map(Entry::Module)
            }
            Code::Component(component) => {
                let linked = self.components.instantiate_pre(component)?;
                Ok(match kind {
                    Kind::Module | Kind::Command => Entry::Command(CommandPre::new(linked)?),
                    Kind::ConcurrentCommand => Entry::ConcurrentCommand(ConcurrentCommandPre::new(linked)?),
                    Kind::Server => Entry::Server(ProxyPre::P2(ServerPre::new(linked)?)),
                    Kind::ConcurrentServer => Entry::Server(ProxyPre::P3(ConcurrentServerPre::new(linked)?)),
                })
            }
        }
    }
}

fn ensure_runs(module: &Module) -> wasmtime::Result<()> {
    match module.get_export("_start") {
        Some(ExternType::Func(start)) if start.params().len() == 0 && start.results().len() == 0 => Ok(()),
        _ => Err(wasmtime::format_err!("the function `_start` must take and give nothing")),
    }
}

fn module_linker(engine: &Engine) -> wasmtime::Result<Linker<ModuleGuest>> {
    let mut linker = Linker::new(engine);
    p1::add_to_linker_async(&mut linker, |guest: &mut ModuleGuest| &mut guest.world.wasi)?;
    p0::add_to_linker_async(&mut linker, |guest: &mut ModuleGuest| &mut guest.world.wasi)?;
    sockets::add_to_linker(&mut linker)?;
    linker.allow_shadowing(true);
    for interface in ["wasi_snapshot_preview1", "wasi_unstable"] {
        // The library's own refuses the codes from 126.
        linker.func_wrap(interface, "proc_exit", |code: i32| -> wasmtime::Result<()> {
            Err(I32Exit(code).into())
        })?;
    }
    Ok(linker)
}

fn component_linker(engine: &Engine) -> wasmtime::Result<ComponentLinker<ComponentGuest>> {
    let mut linker = ComponentLinker::new(engine);
    p2::add_to_linker_async(&mut linker)?;
    p3::add_to_linker(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
    network::add_to_linker(&mut linker)?;
    Ok(linker)
}

/// Loaded code, not linked yet.
pub(crate) enum Code {
    Module(Module),
    Component(Component),
}

impl Code {
    fn mappings(&self) -> u64 {
        let resources = match self {
            Self::Module(module) => Some(module.resources_required()),
            Self::Component(component) => component.resources_required(),
        };
        let memories = resources.map_or(1, |resources| u64::from(resources.num_memories));
        MAPPINGS_PER_GUEST + MAPPINGS_PER_MEMORY * memories
    }
}

/// A program that is ready to start.
pub(crate) struct Program {
    pub(crate) kind: Kind,
    /// Whether it is one of Go's, whose single thread must never wait in a call on one socket.
    pub(crate) is_go: bool,
    /// The most memory mappings that one run of it takes.
    pub(crate) mappings: u64,
    engine: Engine,
    entry: Entry,
}

enum Entry {
    Module(InstancePre<ModuleGuest>),
    Command(CommandPre<ComponentGuest>),
    ConcurrentCommand(ConcurrentCommandPre<ComponentGuest>),
    Server(ProxyPre<ComponentGuest>),
}

/// An instance that answers requests.
pub(crate) struct Instance {
    pub(crate) store: Store<ComponentGuest>,
    pub(crate) proxy: Proxy,
}

impl Program {
    /// Makes an instance of a server over directories that it shares with others.
    ///
    /// # Errors
    /// When it cannot be made within the limits, or traps, or the program is no server.
    pub(crate) async fn instantiate(
        &self,
        world: World,
        files: &WasiFilesystemCtx,
        limiter: Limiter,
    ) -> wasmtime::Result<Instance> {
        let Entry::Server(entry) = &self.entry else {
            return Err(wasmtime::format_err!("a {} answers no requests", self.kind));
        };
        let world = ComponentWorld::new(world).over(files);
        let mut store = self.store(Guest { world, limiter });
        let proxy = entry.instantiate_async(&mut store).await?;
        Ok(Instance { store, proxy })
    }

    /// Runs it once, from instantiation to its end. Dropping the future ends the run.
    pub(crate) async fn run(&self, world: World, limiter: Limiter) -> Verdict {
        match &self.entry {
            Entry::Module(entry) => {
                let world = ModuleWorld::new(world, self.is_go);
                self.run_module(entry, Guest { world, limiter }).await
            }
            Entry::Command(entry) => {
                let guest = Guest { world: ComponentWorld::new(world), limiter };
                self.run_command(entry, guest).await
            }
            Entry::ConcurrentCommand(entry) => {
                let guest = Guest { world: ComponentWorld::new(world), limiter };
                self.run_concurrent_command(entry, guest).await
            }
            Entry::Server(_) => Err(wasmtime::format_err!("a {} waits for requests", self.kind)),
        }
    }

    async fn run_module(&self, entry: &InstancePre<ModuleGuest>, guest: ModuleGuest) -> Verdict {
        let mut store = self.store(guest);
        let instance = entry.instantiate_async(&mut store).await?;
        if let Ok(initialize) = instance.get_typed_func::<(), ()>(&mut store, "_initialize") {
            initialize.call_async(&mut store, ()).await?;
        }
        let start = instance.get_typed_func::<(), ()>(&mut store, "_start")?;
        start.call_async(&mut store, ()).await?;
        Ok(Ok(()))
    }

    async fn run_command(&self, entry: &CommandPre<ComponentGuest>, guest: ComponentGuest) -> Verdict {
        let mut store = self.store(guest);
        let command = entry.instantiate_async(&mut store).await?;
        command.wasi_cli_run().call_run(&mut store).await
    }

    async fn run_concurrent_command(
        &self,
        entry: &ConcurrentCommandPre<ComponentGuest>,
        guest: ComponentGuest,
    ) -> Verdict {
        let mut store = self.store(guest);
        let command = entry.instantiate_async(&mut store).await?;
        store.run_concurrent(async move |accessor| command.wasi_cli_run().call_run(accessor).await).await?
    }

    fn store<W: Send + 'static>(&self, guest: Guest<W>) -> Store<Guest<W>> {
        let mut store = Store::new(&self.engine, guest);
        store.limiter(|guest| &mut guest.limiter);
        store.set_epoch_deadline(1);
        store.epoch_deadline_async_yield_and_update(1);
        store.set_max_component_handles(MAX_HANDLES);
        store.set_hostcall_fuel(HOSTCALL_BYTES);
        store
    }
}
