use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use coracle_lifecycle::{
    BoxFuture, Cause, Container, ContainerId, ContainerSpec, Digest, ExecError, ExecRequest, Exit, ImageKind,
    Known, LocalImage, NoNetwork, NodeNetwork, PodUid, PrepareError, Provider, RuntimeInfo, StartError,
    Streams, Unsupported, Usage,
};
use futures::AsyncWriteExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::watch;

use crate::clock;

/// A runtime in memory. A container runs until the test ends it or it is stopped; its image says how it behaves:
///
/// - `hello` prints `hello from a guest` and ends with code 0
/// - `exits-N` ends at once with code N, `exit-code` with its first argument
/// - `trap` fails at once, and `grow-memory` does when it or its pod has a limit
/// - `deaf` does not hear when it is stopped, nor can it be killed
/// - `tools` runs commands: see [`command`]
/// - `unknown-import`, `garbage` and `too-large` cannot be prepared
/// - `panics` makes the runtime panic
#[derive(Clone)]
pub(crate) struct FakeRuntime {
    pub(crate) state: Arc<watch::Sender<Runtime>>,
}

/// What the runtime runs and has seen.
#[derive(Default)]
pub(crate) struct Runtime {
    /// All runs in the order of their starts.
    pub(crate) runs: Vec<Run>,
    /// Why no start succeeds now.
    pub(crate) refusal: Option<StartError>,
    /// No start ends while this is set.
    pub(crate) hangs: bool,
    /// How often a start was asked for.
    pub(crate) starts: usize,
    /// The commands that were run beside programs.
    pub(crate) execs: Vec<Vec<String>>,
    /// The exit code of the command `program health`.
    pub(crate) health: i32,
    /// Pods can have addresses of their own.
    pub(crate) gives_addresses: bool,
    /// Pods that were removed as a whole.
    pub(crate) removed_pods: BTreeSet<String>,
    /// Containers that ended because they were removed: a node never does that.
    pub(super) removed_running: Vec<ContainerId>,
}

/// One run of a container.
#[derive(Clone)]
pub(crate) struct Run {
    pub(crate) spec: ContainerSpec,
    pub(crate) started_at: Timestamp,
    pub(crate) exit: Option<Exit>,
    /// The graces it was asked to stop with.
    pub(crate) stops: Vec<Duration>,
    /// The node has recorded its end.
    pub(crate) is_removed: bool,
}

impl Run {
    fn new(spec: ContainerSpec) -> Self {
        Self { spec, started_at: clock::now(), exit: None, stops: Vec::new(), is_removed: false }
    }

    pub(crate) fn end(&mut self, cause: Cause) {
        let message = matches!(cause, Cause::Trapped(_)).then(|| "as the image wants".to_owned());
        let (started_at, finished_at) = (self.started_at, clock::now());
        self.exit.get_or_insert(Exit { cause, message, started_at, finished_at });
    }
}

/// How a container ends by itself as soon as it is started.
fn own_end(spec: &ContainerSpec) -> Option<Cause> {
    let code = |text: &str| Cause::Exited(text.parse().unwrap());
    let is_limited = spec.limits.memory.or(spec.pod_limits.memory).is_some();
    match spec.image.reference.as_str() {
        "hello" => Some(Cause::Exited(0)),
        "exit-code" => Some(code(&spec.args[0])),
        "trap" => Some(Cause::Trapped(134)),
        "grow-memory" => is_limited.then_some(Cause::OutOfMemory),
        name => name.strip_prefix("exits-").map(code),
    }
}

/// Leaves behind what a container of this image writes: its log, and a file in its root.
fn write(spec: &ContainerSpec) -> std::io::Result<()> {
    std::fs::write(spec.root.join("written-by-the-run-before"), "")?;
    let says_hello = spec.image.reference == "hello";
    let hello = says_hello.then(|| format!("{} stdout F hello from a guest\n", clock::now()));
    std::fs::write(&spec.log.path, hello.unwrap_or_default())
}

impl Runtime {
    /// The runs of a pod in order.
    pub(crate) fn of(&self, pod: &str) -> Vec<&Run> {
        self.runs.iter().filter(|run| run.spec.pod.name == pod).collect()
    }

    fn run(&mut self, id: &ContainerId) -> Option<&mut Run> {
        self.runs.iter_mut().rfind(|run| run.spec.id == *id)
    }
}

impl FakeRuntime {
    pub(crate) fn new() -> Self {
        Self { state: Arc::new(watch::Sender::new(Runtime::default())) }
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Runtime)) {
        self.state.send_modify(change);
    }

    /// Ends the latest run of a pod.
    pub(crate) fn exit(&self, pod: &str, cause: Cause) {
        self.change(|state| {
            let run = state.runs.iter_mut().rfind(|run| run.spec.pod.name == pod).unwrap();
            run.end(cause);
        });
    }

    /// The agent's process died and all that ran in it.
    pub(super) fn die(&self) {
        self.change(|state| state.runs.iter_mut().for_each(|run| run.is_removed = true));
    }
}

/// What the commands of the image `tools` do, which goes by the name `program`.
async fn command(words: &[String], streams: Streams, health: i32) -> i32 {
    let mut stdout = streams.stdout.unwrap_or_else(|| Box::new(futures::io::sink()));
    let mut stderr = streams.stderr.unwrap_or_else(|| Box::new(futures::io::sink()));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["program", "exit", code] => code.parse().unwrap(),
        ["program", "say", text] => {
            stdout.write_all(format!("{text}\n").as_bytes()).await.unwrap();
            0
        }
        ["program", "health"] if health == 0 => 0,
        ["program", "health"] => {
            stderr.write_all(b"unwell\n").await.unwrap();
            health
        }
        ["program", "copy"] => {
            futures::io::copy(streams.stdin.unwrap(), &mut stdout).await.unwrap();
            0
        }
        ["program", "sleep"] => std::future::pending().await,
        ["program", "flood"] => {
            for _ in 0..1_000 {
                stderr.write_all(&[b'x'; 4_096]).await.unwrap();
            }
            1
        }
        _ => {
            let text = format!("exec: {:?}: executable file not found in $PATH\n", words.first());
            stderr.write_all(text.as_bytes()).await.unwrap();
            127
        }
    }
}

struct Handle {
    runtime: FakeRuntime,
    id: ContainerId,
}

impl Container for Handle {
    fn exited(&self) -> BoxFuture<'_, Exit> {
        Box::pin(async {
            let mut state = self.runtime.state.subscribe();
            let exit = |state: &Runtime| {
                state.runs.iter().rfind(|run| run.spec.id == self.id).and_then(|run| run.exit.clone())
            };
            let state = state.wait_for(|state| exit(state).is_some()).await.unwrap();
            exit(&state).unwrap()
        })
    }

    fn stop(&self, grace: Duration) {
        self.runtime.change(|state| {
            let run = state.run(&self.id).unwrap();
            run.stops.push(grace);
            if run.spec.image.reference != "deaf" {
                run.end(if grace.is_zero() { Cause::Killed } else { Cause::Stopped });
            }
        });
    }

    fn exec(&self, request: ExecRequest, streams: Streams) -> BoxFuture<'_, Result<i32, ExecError>> {
        self.runtime.change(|state| state.execs.push(request.command.clone()));
        Box::pin(async move {
            let mut state = self.runtime.state.subscribe();
            let has_ended = |state: &Runtime| {
                state.runs.iter().rfind(|run| run.spec.id == self.id).is_none_or(|run| run.exit.is_some())
            };
            let health = self.runtime.state.borrow().health;
            tokio::select! {
                biased;
                _ = state.wait_for(has_ended) => Err(ExecError::NotRunning),
                code = command(&request.command, streams, health) => Ok(code),
            }
        })
    }

    fn usage(&self) -> BoxFuture<'_, Usage> {
        Box::pin(async { Usage::default() })
    }
}

impl Provider for FakeRuntime {
    fn describe(&self) -> RuntimeInfo {
        RuntimeInfo {
            name: "fake".to_owned(),
            version: "1.0.0".to_owned(),
            architecture: "wasm32".to_owned(),
            operating_system: "none".to_owned(),
            handlers: Vec::new(),
            max_containers: 100,
        }
    }

    fn accepts(&self, pod: &Pod) -> Result<(), Unsupported> {
        let asks = pod.spec.as_ref().and_then(|spec| spec.host_pid) == Some(true);
        let refusal = || Unsupported { field: "spec.hostPID".to_owned(), why: "not here".to_owned() };
        if asks { Err(refusal()) } else { Ok(()) }
    }

    fn open_network<'a>(&'a self, _: &'a NodeNetwork) -> BoxFuture<'a, Result<(), NoNetwork>> {
        let gives = self.state.borrow().gives_addresses;
        let answer = gives.then_some(()).ok_or_else(|| NoNetwork("as the test wants".to_owned()));
        Box::pin(async { answer })
    }

    fn prepare<'a>(&'a self, image: &'a LocalImage) -> BoxFuture<'a, Result<ImageKind, PrepareError>> {
        assert_ne!(image.reference, "panics", "as the test wants");
        let answer = match image.reference.as_str() {
            "unknown-import" => Err(PrepareError::Unsupported("unknown import env.foo".to_owned())),
            "too-large" => Err(PrepareError::TooExpensive("compiling took too much".to_owned())),
            "garbage" => Err(PrepareError::Invalid("not a program".to_owned())),
            _ => Ok(ImageKind("test program".to_owned())),
        };
        Box::pin(async { answer })
    }

    fn forget(&self, _: &Digest) {}

    fn start(&self, spec: ContainerSpec) -> BoxFuture<'_, Result<Arc<dyn Container>, StartError>> {
        Box::pin(async {
            self.change(|state| state.starts += 1);
            self.state.subscribe().wait_for(|state| !state.hangs).await.unwrap();
            if let Some(refusal) = self.state.borrow().refusal.clone() {
                return Err(refusal);
            }
            write(&spec).map_err(|error| StartError::Invalid(error.to_string()))?;
            let (id, cause) = (spec.id.clone(), own_end(&spec));
            let mut run = Run::new(spec);
            if let Some(cause) = cause {
                run.end(cause);
            }
            self.change(|state| state.runs.push(run));
            Ok(Arc::new(Handle { runtime: self.clone(), id }) as Arc<dyn Container>)
        })
    }

    fn containers(&self) -> BoxFuture<'_, Vec<Known>> {
        let state = self.state.borrow();
        let known = state.runs.iter().filter(|run| !run.is_removed).map(|run| Known {
            spec: run.spec.clone(),
            started_at: run.started_at,
            exit: run.exit.clone(),
            container: Arc::new(Handle { runtime: self.clone(), id: run.spec.id.clone() }),
        });
        let known = known.collect();
        Box::pin(async { known })
    }

    fn remove(&self, id: &ContainerId) {
        self.change(|state| {
            // A start that was given up may never have come to be a run.
            let Some(run) = state.run(id) else { return };
            let was_running = run.exit.is_none();
            run.end(Cause::Killed);
            run.is_removed = true;
            state.removed_running.extend(was_running.then(|| id.clone()));
        });
    }

    fn remove_pod(&self, uid: &PodUid) {
        self.change(|state| {
            state.removed_pods.insert(uid.to_string());
        });
    }
}
