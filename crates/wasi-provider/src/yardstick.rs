//! What this crate's servers are measured against: the same programs under wasmtime's own handler of requests, with the
//! engine, the limiter and the surroundings that a container has, and nothing else.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fs;
use std::future::pending;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use coracle_lifecycle::{ContainerSpec, Limits, Network};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use wasmtime::component::GuestTaskId;
use wasmtime::{Store, StoreContextMut, format_err};
use wasmtime_wasi_http::handler::{
    self, HandlerState, ProxyHandler, ShouldAccept, WorkerExpiration, WorkerState, WorkerStatus,
};
use wasmtime_wasi_http::{Error, WasiHttpView as _};

use crate::engine::{Layout, engine};
use crate::guest::{ComponentGuest, world};
use crate::http::Instances;
use crate::inspect::inspect;
use crate::log::Log;
use crate::program::{Host, Instance, Program};
use crate::room::Room;
use crate::threads::GuestThreads;
use crate::ticker::Ticker;
use crate::usage::Allowance;

/// Serves a component until the process ends: the arguments are its file, the address to listen on, how many requests an
/// instance answers, and how many at a time. For benchmarks.
#[must_use]
pub fn yardstick_main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let served = Yardstick::parse(arguments).and_then(|yardstick| {
        let threads = std::thread::available_parallelism()?.get();
        let threads = GuestThreads::start(threads, None)?;
        threads.any().block_on(yardstick.serve())
    });
    let Err(error) = served;
    eprintln!("{error:#}");
    ExitCode::FAILURE
}

/// A digest of nothing.
const ZERO: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

struct Yardstick {
    program: PathBuf,
    address: SocketAddr,
    requests: usize,
    concurrency: usize,
}

impl Yardstick {
    fn parse(arguments: impl IntoIterator<Item = OsString>) -> wasmtime::Result<Self> {
        let mut arguments = arguments.into_iter();
        let mut next = || arguments.next().ok_or_else(|| format_err!("FILE ADDRESS REQUESTS CONCURRENCY"));
        let program = next()?.into();
        let mut word = || next().map(|word| word.to_string_lossy().into_owned());
        Ok(Self {
            program,
            address: word()?.parse()?,
            requests: word()?.parse()?,
            concurrency: word()?.parse()?,
        })
    }

    async fn serve(self) -> wasmtime::Result<Infallible> {
        let (program, _ticker) = load(&self.program)?;
        let reuse = Reuse { requests: self.requests, concurrency: self.concurrency };
        let handler = ProxyHandler::new(State::new(program, reuse)?);
        let listener = TcpListener::bind(self.address).await?;
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            while connections.try_join_next().is_some() {}
            connections.spawn(connection(handler.clone(), stream));
        }
    }
}

async fn connection(handler: ProxyHandler<State>, stream: TcpStream) {
    let service = service_fn(|request: http::Request<Incoming>| {
        let handler = handler.clone();
        async move {
            let request = request.map(|body| body.map_err(Error::Hyper).boxed_unsync());
            handler.handle((), request).await
        }
    });
    // A client that goes away is no error.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

fn load(file: &Path) -> wasmtime::Result<(Program, Ticker)> {
    let bytes = fs::read(file)?;
    let inspected = inspect(&bytes)?;
    let engine = engine(Layout::for_data(inspected.data))?;
    let ticker = Ticker::start([&engine])?;
    let compiled = tempfile::NamedTempFile::new()?;
    fs::write(compiled.path(), engine.precompile_component(&bytes)?)?;
    let host = Host::new(&engine)?;
    let code = host.load(inspected.kind, compiled.path())?;
    Ok((host.link(inspected, &code)?, ticker))
}

/// The container that a bare server would be in.
fn container(folder: &Path, program: &Program) -> wasmtime::Result<ContainerSpec> {
    let spec = serde_json::json!({
        "id": "yardstick", "pod": { "namespace": "default", "name": "yardstick", "uid": "yardstick" },
        "name": "yardstick", "annotations": {}, "network": Network::default(), "root": folder,
        "image": {
            "digest": ZERO, "reference": "yardstick", "repo_digest": "yardstick", "size": 0,
            "content": { "Program": { "digest": ZERO, "path": "", "name": program.kind.to_string() } },
        },
        "read_only_root": false, "command": [], "args": [], "env": [], "mounts": [], "ports": [],
        "limits": Limits::default(), "pod_limits": Limits::default(),
        "log": { "path": folder.join("log"), "max_size": u64::MAX, "max_files": 2 },
        "stdin": false, "tty": false,
    });
    Ok(serde_json::from_value(spec)?)
}

struct State {
    instances: Instances,
    reuse: Reuse,
    _folder: TempDir,
}

impl State {
    fn new(program: Program, reuse: Reuse) -> wasmtime::Result<Self> {
        let folder = tempfile::tempdir()?;
        let spec = container(folder.path(), &program)?;
        let log = Log::open(spec.log.clone())?;
        let room = Room::of_process();
        let world = world(&spec, program.kind, &log, &room, &Arc::default())?;
        let allowance = Allowance { container: (Arc::default(), None), pod: (Arc::default(), None) };
        let instances = Instances::new(Arc::new(program), spec, log, world, allowance, room);
        Ok(Self { instances, reuse, _folder: folder })
    }
}

impl HandlerState for State {
    type StoreData = ComponentGuest;
    type WorkerExpiration = Never;
    type WorkerState = Reuse;

    async fn instantiate(&self) -> wasmtime::Result<handler::Instance<ComponentGuest, Never, Reuse>> {
        let Instance { store, proxy } = self.instances.instantiate().await?;
        let view = ComponentGuest::http;
        Ok(handler::Instance { store, proxy, view, expiration: Never, state: self.reuse })
    }
}

/// Instances stay until they have answered what they may.
struct Never;

impl WorkerExpiration for Never {
    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>, _: WorkerStatus, _: Instant) -> Poll<()> {
        Poll::Pending
    }
}

#[derive(Clone, Copy)]
struct Reuse {
    requests: usize,
    concurrency: usize,
}

impl WorkerState for Reuse {
    type StoreData = ComponentGuest;
    type RequestData = ();

    fn should_accept_request(&self, concurrent: usize, total: usize) -> ShouldAccept {
        if total >= self.requests {
            ShouldAccept::Never
        } else if concurrent >= self.concurrency {
            ShouldAccept::No
        } else {
            ShouldAccept::Yes
        }
    }

    fn on_request_start(
        &self,
        _: StoreContextMut<'_, ComponentGuest>,
        (): (),
        _: GuestTaskId,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + Sync>> {
        Box::pin(pending())
    }

    fn drop(&self, _: Store<ComponentGuest>, _: wasmtime::Result<()>) {}
}
