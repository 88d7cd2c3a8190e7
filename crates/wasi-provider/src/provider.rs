//! The port of the node, made of the parts.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{io, thread};

use coracle_lifecycle::{
    BoxFuture, Container, ContainerId, ContainerSpec, Digest, ImageContent, ImageKind, Known, LocalImage,
    NoNetwork, NodeNetwork, PodUid, PrepareError, Provider, RuntimeInfo, StartError, Unsupported,
};
use futures::FutureExt as _;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use thiserror::Error;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wasmtime::Engine;

use crate::accept;
use crate::beside::Beside;
use crate::cache::{Cache, sweep};
use crate::compile::{CompileLimits, Compiler};
use crate::container::{Ear, Run};
use crate::engine::{Layout, compatibility, engine};
use crate::finder::Finder;
use crate::guest::{World, listening_ports, serving_port, world};
use crate::hearing::{self, Silence};
use crate::http::{self, Instances, Server};
use crate::inspect::Kind;
use crate::log::Log;
use crate::network::forward::{self, Forward, Until};
use crate::network::{Doorway, Entrance, PodNetwork};
use crate::program::{Host, Program};
use crate::programs::{Loader, Programs};
use crate::room::Room;
use crate::threads::GuestThreads;
use crate::ticker::Ticker;
use crate::usage::{Allowance, Count, Limiter};

/// What Krustlet's nodes said of their architecture and operating system, so that its manifests run unchanged.
const PLATFORM: &str = "wasm32-wasi";

/// How the provider is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where compiled code is kept, out of reach of guests. Made when missing, for its owner alone.
    pub cache_dir: PathBuf,
    /// A program that calls [`crate::compile_main`] with the arguments after its first, `compile`.
    pub compiler: PathBuf,
    /// What compiling one program may take.
    pub compile_limits: CompileLimits,
    /// The threads that run guests, and the compilers at a time; as many as cores when not given.
    pub threads: Option<NonZeroUsize>,
    /// Whose pods get a network of their own: a directory that no other node has. Without one, and where the machine does
    /// not allow it, they share the machine's.
    pub network: Option<PathBuf>,
}

impl Settings {
    /// The usual settings.
    #[must_use]
    pub fn new(cache_dir: impl Into<PathBuf>, compiler: impl Into<PathBuf>) -> Self {
        Self {
            cache_dir: cache_dir.into(),
            compiler: compiler.into(),
            compile_limits: CompileLimits::default(),
            threads: None,
            network: None,
        }
    }
}

/// Why the provider cannot be set up.
#[derive(Debug, Error)]
pub enum SetupError {
    /// The cache of compiled code cannot be used.
    #[error("the directory for compiled code {path} cannot be used: {source}")]
    Cache {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Threads cannot be started.
    #[error("threads for guests cannot be started: {0}")]
    Threads(io::Error),
    /// The engine refuses this machine.
    #[error("wasmtime cannot be set up: {0:#}")]
    Engine(wasmtime::Error),
}

/// Runs containers with wasmtime, in this process, on threads of their own.
///
/// Dropping it ends all its containers at once.
pub struct WasiProvider {
    finder: Arc<Finder>,
    runs: Mutex<HashMap<ContainerId, Arc<Run>>>,
    pods: Mutex<HashMap<PodUid, Arc<Count>>>,
    ticker: Arc<Ticker>,
    room: Arc<Room>,
    tasks: TaskTracker,
    threads: GuestThreads,
    /// Why pods have none of their own, where they have none.
    network: Result<PodNetwork, String>,
}

impl WasiProvider {
    /// Starts the threads and opens the cache.
    ///
    /// # Errors
    /// When the cache's directory cannot be used, or this machine cannot run guests.
    pub fn new(settings: Settings) -> Result<Self, SetupError> {
        let number =
            settings.threads.or_else(|| thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get);
        let network = network(settings.network.as_deref());
        let namespace = network.as_ref().ok().map(PodNetwork::namespace);
        let threads = GuestThreads::start(number, namespace).map_err(SetupError::Threads)?;
        let [copied, mapped] = Layout::ALL.map(engine);
        let engines = [copied.map_err(SetupError::Engine)?, mapped.map_err(SetupError::Engine)?];
        let ticker = Arc::new(Ticker::start(&engines).map_err(SetupError::Threads)?);
        let tasks = TaskTracker::new();
        let targets = targets(&settings.cache_dir, &engines)?;
        let compiler = Compiler::new(settings.compiler, settings.compile_limits, number);
        let programs = Programs::new(Loader { compiler, targets }, tasks.clone(), threads.any());
        let (runs, pods) = (Mutex::default(), Mutex::default());
        let finder = Arc::new(Finder::new(programs, threads.any()));
        let room = Room::of_process();
        Ok(Self { finder, runs, pods, ticker, room, tasks, threads, network })
    }

    /// How many programs were compiled since the start; those found in the cache are none of them.
    #[must_use]
    pub fn compiled(&self) -> u64 {
        self.finder.programs.compiled()
    }
}

fn network(mark: Option<&Path>) -> Result<PodNetwork, String> {
    let mark = mark.ok_or("the node is set up so")?;
    PodNetwork::make(mark).map_err(|error| error.to_string())
}

fn targets(folder: &Path, engines: &[Engine; 2]) -> Result<[(Host, Cache); 2], SetupError> {
    let cache = |source| SetupError::Cache { path: folder.to_owned(), source };
    let keys = engines.each_ref().map(compatibility);
    let [copied, mapped] = [0, 1].map(|index| {
        let host = Host::new(&engines[index]).map_err(SetupError::Engine)?;
        Ok((host, Cache::open(folder, &keys[index]).map_err(cache)?))
    });
    let targets = [copied?, mapped?];
    sweep(folder, &keys).map_err(cache)?;
    Ok(targets)
}

impl WasiProvider {
    async fn launch(&self, spec: ContainerSpec) -> Result<Arc<dyn Container>, StartError> {
        let program = self.finder.program(&spec, spec.command_line()).await?;
        let run = if program.kind.is_server() {
            self.launch_server(spec, program).await
        } else {
            self.launch_command(spec, program).await
        };
        run.map(|run| run as Arc<dyn Container>)
    }

    async fn launch_command(
        &self,
        spec: ContainerSpec,
        program: Arc<Program>,
    ) -> Result<Arc<Run>, StartError> {
        let place = self.room.take(spec.mounts.len(), program.mappings)?;
        let allowance = self.allowance(&spec);
        let limiter = Limiter::within(&allowance);
        let hears = hearing::by_input(&spec.annotations);
        let hears = hears.map_err(|error| StartError::Invalid(error.to_string()))?;
        let threads = self.threads_of(&spec)?;
        let entrance = self.entrance(&spec, program.kind, &threads).await?;
        let forwards = self.forwards(&spec).await?;
        let (spec, mut world, log) = self.open(spec, program.kind, &entrance).await?;
        let ear = ear(hears, entrance, &mut world);
        let run = self.run(spec, log, ear, self.beside(&allowance, &threads))?;
        self.forward(forwards, &run)?;
        let work = async move {
            let _place = place;
            program.run(world, limiter).await
        };
        self.tasks.spawn_on(Arc::clone(&run).live(work), &threads);
        Ok(run)
    }

    async fn launch_server(
        &self,
        spec: ContainerSpec,
        program: Arc<Program>,
    ) -> Result<Arc<Run>, StartError> {
        let settings =
            http::Settings::of(&spec.annotations).map_err(|error| StartError::Invalid(error.to_string()))?;
        // One more for the listener; each instance takes its mappings itself.
        let place = self.room.take(spec.mounts.len() + 1, 0)?;
        let allowance = self.allowance(&spec);
        let (spec, world, log) = self.open(spec, program.kind, &Arc::default()).await?;
        let threads = self.threads_of(&spec)?;
        let listener = self.listen(&spec, serving_port(&spec), &threads).await?;
        let forwards = self.forwards(&spec).await?;
        let drain = CancellationToken::new();
        let (ear, beside) = (Ear::Server(drain.clone()), self.beside(&allowance, &threads));
        let run = self.run(spec.clone(), log.clone(), ear, beside)?;
        self.forward(forwards, &run)?;
        let instances = Instances::new(program, spec, log.clone(), world, allowance, Arc::clone(&self.room));
        let server = Server {
            settings,
            instances,
            log,
            run: Arc::clone(&run),
            room: Arc::clone(&self.room),
            drain,
            runtime: threads.clone(),
        };
        let work = async move {
            let _place = place;
            server.serve(listener).await
        };
        self.tasks.spawn_on(Arc::clone(&run).live(work), &threads);
        Ok(run)
    }

    /// Where connections come into a container: a module's sockets are made for it, others make their own.
    async fn entrance(
        &self,
        spec: &ContainerSpec,
        kind: Kind,
        threads: &Handle,
    ) -> Result<Arc<Entrance>, StartError> {
        let mut sockets = Vec::new();
        let ports = if kind == Kind::Module { listening_ports(spec) } else { Vec::new() };
        for port in ports {
            sockets.push(self.listen(spec, port.number, threads).await?);
        }
        Ok(Arc::new(Entrance::new(sockets, &self.room)))
    }

    /// Opens the node's ports that lead to a container.
    async fn forwards(&self, spec: &ContainerSpec) -> Result<Vec<Forward>, StartError> {
        if spec.ports.iter().all(|port| port.host_port.is_none()) {
            return Ok(Vec::new());
        }
        let opening = {
            let spec = spec.clone();
            self.tasks.spawn_on(async move { forward::open(&spec) }, &self.outside()?)
        };
        let opened = opening.await.map_err(|error| error.to_string()).flatten();
        opened.map_err(StartError::Failed)
    }

    /// Leads whoever comes to those ports to the container, for as long as it runs.
    fn forward(&self, forwards: Vec<Forward>, run: &Arc<Run>) -> Result<(), StartError> {
        for forward in forwards {
            let until = Until { closing: run.closing(), run: Arc::clone(run) };
            self.tasks.spawn_on(forward.serve(until, Arc::clone(&self.room)), &self.outside()?);
        }
        Ok(())
    }

    fn outside(&self) -> Result<Handle, StartError> {
        self.threads.outside().map_err(cannot_start_threads)
    }

    /// Listens on a port of the container's pod, from the threads that run guests.
    async fn listen(&self, spec: &ContainerSpec, port: u16, threads: &Handle) -> Result<Doorway, StartError> {
        let network = spec.network.clone();
        let opening = self.tasks.spawn_on(async move { Doorway::open(&network, port) }, threads);
        let opened = opening.await.map_err(|error| error.to_string());
        opened.and_then(|opened| opened.map_err(|error| error.to_string())).map_err(StartError::Failed)
    }

    /// The threads on which a container runs.
    fn threads_of(&self, spec: &ContainerSpec) -> Result<Handle, StartError> {
        self.threads.of(&spec.network).map_err(cannot_start_threads)
    }

    /// The run of a new container, which is registered from here on.
    fn run(&self, spec: ContainerSpec, log: Log, ear: Ear, beside: Beside) -> Result<Arc<Run>, StartError> {
        let run = Run::new(spec, log, ear, Arc::clone(&self.ticker), beside);
        self.register(&run)?;
        Ok(run)
    }

    fn beside(&self, allowance: &Allowance, threads: &Handle) -> Beside {
        Beside {
            finder: Arc::clone(&self.finder),
            allowance: allowance.clone(),
            room: Arc::clone(&self.room),
            tasks: self.tasks.clone(),
            runtime: threads.clone(),
        }
    }

    fn allowance(&self, spec: &ContainerSpec) -> Allowance {
        Allowance {
            container: (Arc::default(), spec.limits.memory),
            pod: (self.pod(&spec.pod.uid), spec.pod_limits.memory),
        }
    }

    /// Opens the container's files, on a thread that may wait for them.
    async fn open(
        &self,
        spec: ContainerSpec,
        kind: Kind,
        entrance: &Arc<Entrance>,
    ) -> Result<(ContainerSpec, World, Log), StartError> {
        let (room, entrance) = (Arc::clone(&self.room), Arc::clone(entrance));
        let opened = self.threads.any().spawn_blocking(move || {
            let log = Log::open(spec.log.clone()).map_err(|error| {
                StartError::Failed(format!("the log {} cannot be opened: {error}", spec.log.path.display()))
            })?;
            let world = world(&spec, kind, &log, &room, &entrance)?;
            Ok((spec, world, log))
        });
        opened
            .await
            .unwrap_or_else(|error| Err(StartError::Failed(format!("opening its files failed: {error}"))))
    }

    fn register(&self, run: &Arc<Run>) -> Result<(), StartError> {
        match self.runs.lock().entry(run.spec().id.clone()) {
            Entry::Occupied(entry) => {
                Err(StartError::Invalid(format!("the container {} was started before", entry.key())))
            }
            Entry::Vacant(entry) => {
                entry.insert(Arc::clone(run));
                Ok(())
            }
        }
    }

    /// What the containers of a pod use together.
    fn pod(&self, uid: &PodUid) -> Arc<Count> {
        Arc::clone(self.pods.lock().entry(uid.clone()).or_default())
    }
}

/// What a program hears, which sees this world.
fn ear(hears: bool, entrance: Arc<Entrance>, world: &mut World) -> Ear {
    if !hears {
        return Ear::Entrance(entrance);
    }
    let asked = CancellationToken::new();
    world.context.stdin(Silence(asked.clone()));
    Ear::Reader(entrance, asked)
}

impl Provider for WasiProvider {
    fn describe(&self) -> RuntimeInfo {
        RuntimeInfo {
            name: "wasmtime".to_owned(),
            version: wasmtime_environ::VERSION.to_owned(),
            architecture: PLATFORM.to_owned(),
            operating_system: PLATFORM.to_owned(),
            handlers: vec!["wasmtime".to_owned()],
            max_containers: self.room.containers(),
        }
    }

    fn accepts(&self, pod: &Pod) -> Result<(), Unsupported> {
        accept::accepts(pod)
    }

    fn open_network<'a>(&'a self, network: &'a NodeNetwork) -> BoxFuture<'a, Result<(), NoNetwork>> {
        let opened = match &self.network {
            Ok(own) => own.lead(network).map_err(|error| NoNetwork(error.to_string())),
            Err(why) => Err(NoNetwork(why.clone())),
        };
        std::future::ready(opened).boxed()
    }

    fn prepare<'a>(&'a self, image: &'a LocalImage) -> BoxFuture<'a, Result<ImageKind, PrepareError>> {
        match &image.content {
            ImageContent::Program(module) => {
                let loading = self.finder.programs.load(module);
                loading.map(|loaded| loaded.map(|program| ImageKind(program.kind.to_string()))).boxed()
            }
            // Which program it is depends on the pod's command and volumes: it is made ready when it starts.
            ImageContent::Files(_) => {
                std::future::ready(Ok(ImageKind("image with files".to_owned()))).boxed()
            }
        }
    }

    fn forget(&self, module: &Digest) {
        self.finder.programs.forget(module);
    }

    fn start(&self, spec: ContainerSpec) -> BoxFuture<'_, Result<Arc<dyn Container>, StartError>> {
        self.launch(spec).boxed()
    }

    fn containers(&self) -> BoxFuture<'_, Vec<Known>> {
        let known = self.runs.lock().values().map(Run::known).collect();
        std::future::ready(known).boxed()
    }

    fn remove(&self, id: &ContainerId) {
        let removed = self.runs.lock().remove(id);
        if let Some(run) = removed {
            // Nobody could reach it any more.
            run.stop(Duration::ZERO);
        }
    }

    fn remove_pod(&self, uid: &PodUid) {
        self.pods.lock().remove(uid);
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that `map_err` wants")]
fn cannot_start_threads(error: io::Error) -> StartError {
    StartError::Failed(format!("no threads can be started for it: {error}"))
}
