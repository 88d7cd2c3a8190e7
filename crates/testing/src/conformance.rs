//! What any [`Provider`] must do, told without a word of how: it is given programs by what they do.
//!
//! A test of a provider makes the [`Programs`] in its own way and hands them to [`check_all`], in real time:
//!
//! ```no_run
//! use coracle_testing::conformance::{Bench, Programs, check_all};
//!
//! async fn conforms(provider: &dyn coracle_lifecycle::Provider, programs: &Programs) -> std::io::Result<()> {
//!     let folder = tempfile::tempdir()?;
//!     check_all(&Bench::new(provider, folder.path()), programs).await;
//!     Ok(())
//! }
//! ```
//!
//! What is not as it must be is told by a panic, as everywhere in tests.

mod checks;
mod commands;
mod network;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use coracle_lifecycle::{
    Container, ContainerId, ContainerSpec, Exit, Limits, LocalImage, LogFile, Network, PodIdentity, PodUid,
    Provider,
};
use futures::FutureExt;

pub use checks::check_all;

/// No stop takes longer, on a machine however busy; on an idle one the bound is 100 ms.
const SOON: Duration = Duration::from_secs(2);
/// Nothing in here takes longer, however slow the machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// Programs by what they do.
#[derive(Clone, Debug)]
pub struct Programs {
    /// Prints `hello from a guest` to standard output and ends with 0.
    pub hello: LocalImage,
    /// Ends with the exit code that its first argument says.
    pub exit_code: LocalImage,
    /// Fails in a way that has no exit code of its own.
    pub trap: LocalImage,
    /// Sleeps for hours.
    pub sleep: LocalImage,
    /// Computes for ever.
    pub spin: LocalImage,
    /// Takes memory until it is refused or ended.
    pub grow_memory: LocalImage,
    /// Many programs in one: by its first argument it ends with an exit code (`exit CODE`), prints a text (`say TEXT`), copies
    /// its input to its output (`copy`) or sleeps for hours (`sleep`).
    pub tools: LocalImage,
    /// No program at all.
    pub garbage: LocalImage,
    /// Programs that listen; `None` for a runtime whose containers have no network.
    pub servers: Option<Servers>,
}

/// Programs that listen on the addresses of their pod.
#[derive(Clone, Debug)]
pub struct Servers {
    /// Started as `echo 0.0.0.0:PORT`, with that port declared, it sends back what each connection sends.
    pub echo: LocalImage,
    /// Answers HTTP at its first declared port: `/hello` at once, `/sleep?MILLISECONDS` with `slept` after that time.
    pub http: LocalImage,
}

/// A provider under test, with the folder that its containers live in.
pub struct Bench<'a> {
    provider: &'a dyn Provider,
    folder: &'a Path,
    made: AtomicU32,
}

impl<'a> Bench<'a> {
    /// A bench for this provider, whose containers have their files in the existing `folder`.
    #[must_use]
    pub fn new(provider: &'a dyn Provider, folder: &'a Path) -> Self {
        Self { provider, folder, made: AtomicU32::new(0) }
    }

    /// A container of this image with an id, a pod, an empty root and a log of its own, and without limits.
    ///
    /// # Panics
    /// The folders of its root and log cannot be made.
    #[must_use]
    pub fn spec(&self, image: &LocalImage, args: &[&str]) -> ContainerSpec {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let uid = PodUid::new(format!("pod-{number}"));
        ContainerSpec {
            id: ContainerId::of(&uid, "main", 0),
            pod: PodIdentity { namespace: "default".to_owned(), name: format!("pod-{number}"), uid },
            name: "main".to_owned(),
            annotations: BTreeMap::new(),
            network: Network::default(),
            image: image.clone(),
            root: self.made_folder(&format!("roots/{number}")),
            read_only_root: false,
            command: Vec::new(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            env: Vec::new(),
            mounts: Vec::new(),
            ports: Vec::new(),
            limits: Limits::default(),
            pod_limits: Limits::default(),
            log: LogFile {
                path: self.made_folder(&format!("logs/{number}/main")).join("0.log"),
                max_size: 10 << 20,
                max_files: 5,
            },
            working_directory: None,
            stdin: false,
            tty: false,
            runtime_handler: None,
        }
    }

    /// An address of the loopback network: another one for each of 255 calls, and in other processes that run tests.
    #[must_use]
    pub fn address() -> Ipv4Addr {
        static TAKEN: AtomicU8 = AtomicU8::new(1);
        let [_, _, high, low] = std::process::id().to_be_bytes();
        Ipv4Addr::new(127, 64 | high & 0x3f, low, TAKEN.fetch_add(1, Ordering::Relaxed))
    }

    fn made_folder(&self, name: &str) -> PathBuf {
        let folder = self.folder.join(name);
        std::fs::create_dir_all(&folder).expect("the bench has a folder to write to");
        folder
    }

    /// Prepares the image and starts the container.
    ///
    /// # Panics
    /// The provider refuses one or the other.
    pub async fn start(&self, spec: ContainerSpec) -> Arc<dyn Container> {
        self.provider.prepare(&spec.image).await.expect("the image can be prepared");
        self.provider.start(spec).await.expect("the container can be started")
    }

    /// Runs the container to its end and tells that, with the text it wrote.
    ///
    /// # Panics
    /// As [`Self::start`] and [`exit_of`]; and the log is not there or not in the CRI format.
    pub async fn run(&self, spec: ContainerSpec) -> (Exit, String) {
        let log = spec.log.path.clone();
        let exit = exit_of(&*self.start(spec).await).await;
        (exit, text(&log))
    }
}

/// The end of a container, awaited.
///
/// # Panics
/// It does not end within a minute.
pub async fn exit_of(container: &dyn Container) -> Exit {
    tokio::time::timeout(PATIENCE, container.exited()).await.expect("the container ends")
}

/// Whether the container is still running.
#[must_use]
pub fn is_running(container: &dyn Container) -> bool {
    // A future that tokio makes yield is no sign of a run.
    tokio::task::unconstrained(container.exited()).now_or_never().is_none()
}

/// Stops the container and tells how it ended.
///
/// # Panics
/// That takes more than two seconds.
pub async fn stop(container: &dyn Container, grace: Duration) -> Exit {
    let took = time_to_stop(container, grace).await;
    assert!(took < SOON, "the stop took {took:?}");
    exit_of(container).await
}

/// How long a stop takes.
///
/// # Panics
/// It takes more than a minute.
pub async fn time_to_stop(container: &dyn Container, grace: Duration) -> Duration {
    let asked = Instant::now();
    container.stop(grace);
    exit_of(container).await;
    asked.elapsed()
}

/// What a log's lines say.
fn text(log: &Path) -> String {
    let content = std::fs::read(log).expect("the log is there");
    let mut text = String::new();
    for line in String::from_utf8_lossy(&content).lines() {
        let fields: Vec<_> = line.splitn(4, ' ').collect();
        let [_time, "stdout" | "stderr", tag @ ("F" | "P"), words] = fields[..] else {
            panic!("not in the CRI format: {line}");
        };
        text.push_str(words);
        text.push_str(if tag == "F" { "\n" } else { "" });
    }
    text
}
