//! What any provider must do, told without a word of how: it is given programs by what they do.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use coracle_lifecycle::{
    Cause, Container, ContainerId, ContainerSpec, Exit, Limits, LocalImage, LogFile, Network, PodIdentity,
    PodUid, PrepareError, Provider, StartError,
};

/// No stop takes longer, on a machine however busy; on an idle one the bound is 100 ms.
const SOON: Duration = Duration::from_secs(2);
/// Nothing in here takes longer, however slow the machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// Programs by what they do.
pub(crate) struct Programs {
    /// Prints `hello from a guest` to standard output and ends with 0.
    pub(crate) hello: LocalImage,
    /// Ends with the exit code that its first argument says.
    pub(crate) exit_code: LocalImage,
    /// Fails in a way that has no exit code of its own.
    pub(crate) trap: LocalImage,
    /// Sleeps for hours.
    pub(crate) sleep: LocalImage,
    /// Computes for ever.
    pub(crate) spin: LocalImage,
    /// Takes memory until it is refused or ended.
    pub(crate) grow_memory: LocalImage,
    /// No program at all.
    pub(crate) garbage: LocalImage,
}

/// A provider under test, with the folder that its containers live in.
pub(crate) struct Bench<'a> {
    pub(crate) provider: &'a dyn Provider,
    pub(crate) folder: &'a Path,
    started: AtomicU32,
}

impl<'a> Bench<'a> {
    pub(crate) fn new(provider: &'a dyn Provider, folder: &'a Path) -> Self {
        Self { provider, folder, started: AtomicU32::new(0) }
    }

    /// A container of this image: its own id, pod, empty root and log.
    pub(crate) fn spec(&self, image: &LocalImage, args: &[&str]) -> ContainerSpec {
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let uid = PodUid::new(format!("pod-{number}"));
        let root = self.folder.join(format!("roots/{number}"));
        std::fs::create_dir_all(&root).unwrap();
        ContainerSpec {
            id: ContainerId::of(&uid, "main", 0),
            pod: PodIdentity { namespace: "default".to_owned(), name: format!("pod-{number}"), uid },
            name: "main".to_owned(),
            annotations: std::collections::BTreeMap::new(),
            network: Network::default(),
            image: image.clone(),
            root,
            read_only_root: false,
            command: Vec::new(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            env: Vec::new(),
            mounts: Vec::new(),
            ports: Vec::new(),
            limits: Limits::default(),
            pod_limits: Limits::default(),
            log: LogFile {
                path: self.folder.join(format!("logs/{number}/main/0.log")),
                max_size: 10 << 20,
                max_files: 5,
            },
            working_directory: None,
            stdin: false,
            tty: false,
            runtime_handler: None,
        }
    }

    /// Prepares the image and starts the container.
    pub(crate) async fn start(&self, spec: ContainerSpec) -> Arc<dyn Container> {
        self.provider.prepare(&spec.image).await.unwrap();
        self.provider.start(spec).await.unwrap()
    }

    /// Runs the container to its end and tells that, with the text it wrote.
    pub(crate) async fn run(&self, spec: ContainerSpec) -> (Exit, String) {
        let log = spec.log.path.clone();
        let exit = exit_of(&*self.start(spec).await).await;
        (exit, text(&log))
    }
}

/// The end of a container, awaited.
pub(crate) async fn exit_of(container: &dyn Container) -> Exit {
    tokio::time::timeout(PATIENCE, container.exited()).await.expect("the container does not end")
}

/// Whether the container is still running.
pub(crate) fn is_running(container: &dyn Container) -> bool {
    futures::FutureExt::now_or_never(container.exited()).is_none()
}

/// What a log's lines say.
pub(crate) fn text(log: &PathBuf) -> String {
    let content = std::fs::read(log).unwrap();
    let content = String::from_utf8_lossy(&content);
    let mut text = String::new();
    for line in content.lines() {
        let mut fields = line.splitn(4, ' ').skip(2);
        let (tag, words) = (fields.next().unwrap(), fields.next().unwrap());
        text.push_str(words);
        text.push_str(if tag == "F" { "\n" } else { "" });
    }
    text
}

/// Stops the container and tells how it ended, which it does soon.
pub(crate) async fn stop(container: &dyn Container, grace: Duration) -> Exit {
    let took = time_to_stop(container, grace).await;
    assert!(took < SOON, "the stop took {took:?}");
    exit_of(container).await
}

/// How long a stop takes.
pub(crate) async fn time_to_stop(container: &dyn Container, grace: Duration) -> Duration {
    let asked = Instant::now();
    container.stop(grace);
    exit_of(container).await;
    asked.elapsed()
}

/// Everything a provider must do.
pub(crate) async fn check_all(bench: &Bench<'_>, programs: &Programs) {
    check_description(bench);
    check_output_and_codes(bench, programs).await;
    check_failures(bench, programs).await;
    check_memory_limit(bench, programs).await;
    check_stop(bench, programs).await;
    check_exits_are_shared(bench, programs).await;
    check_bookkeeping(bench, programs).await;
    check_refusals(bench, programs).await;
}

fn check_description(bench: &Bench<'_>) {
    let info = bench.provider.describe();
    for text in [&info.name, &info.version, &info.architecture, &info.operating_system] {
        assert!(!text.is_empty(), "{info:?}");
    }
    assert!(info.max_containers > 0);
}

async fn check_output_and_codes(bench: &Bench<'_>, programs: &Programs) {
    let (exit, text) = bench.run(bench.spec(&programs.hello, &[])).await;
    assert_eq!((exit.cause, exit.message.as_deref()), (Cause::Exited(0), None));
    assert_eq!(text, "hello from a guest\n");
    assert!(exit.started_at <= exit.finished_at);
    for code in [0, 1, 42, 126, 137, 255] {
        let (exit, _) = bench.run(bench.spec(&programs.exit_code, &[&code.to_string()])).await;
        assert_eq!(exit.cause, Cause::Exited(code));
    }
}

async fn check_failures(bench: &Bench<'_>, programs: &Programs) {
    let (exit, _) = bench.run(bench.spec(&programs.trap, &[])).await;
    assert!(matches!(exit.cause, Cause::Trapped(code) if code > 128), "{exit:?}");
    assert!(exit.message.is_some_and(|message| !message.is_empty()));
}

async fn check_memory_limit(bench: &Bench<'_>, programs: &Programs) {
    let mut spec = bench.spec(&programs.grow_memory, &[]);
    spec.limits.memory = Some(4 << 20);
    assert_eq!(bench.run(spec).await.0.cause, Cause::OutOfMemory);
    let mut spec = bench.spec(&programs.grow_memory, &[]);
    spec.pod_limits.memory = Some(4 << 20);
    assert_eq!(bench.run(spec).await.0.cause, Cause::OutOfMemory);
}

async fn check_stop(bench: &Bench<'_>, programs: &Programs) {
    for image in [&programs.sleep, &programs.spin] {
        for (grace, cause) in [(Duration::from_secs(30), Cause::Stopped), (Duration::ZERO, Cause::Killed)] {
            let container = bench.start(bench.spec(image, &[])).await;
            assert!(is_running(&*container));
            let exit = stop(&*container, grace).await;
            assert_eq!((exit.cause, &exit.message), (cause, &None));
            container.stop(Duration::ZERO);
            assert_eq!(exit_of(&*container).await, exit, "a second stop changes nothing");
        }
    }
    let container = bench.start(bench.spec(&programs.exit_code, &["3"])).await;
    let exit = exit_of(&*container).await;
    container.stop(Duration::from_secs(30));
    assert_eq!(exit_of(&*container).await, exit, "a stop after the end changes nothing");
    assert_eq!(exit.cause, Cause::Exited(3));
}

async fn check_exits_are_shared(bench: &Bench<'_>, programs: &Programs) {
    let container = bench.start(bench.spec(&programs.sleep, &[])).await;
    drop(container.exited());
    let (one, other) = (Arc::clone(&container), Arc::clone(&container));
    let waiting = futures::future::join(exit_of(&*one), exit_of(&*other));
    container.stop(Duration::from_secs(1));
    let (one, other) = waiting.await;
    assert_eq!(one, other);
}

async fn check_bookkeeping(bench: &Bench<'_>, programs: &Programs) {
    let (ended, running) = (bench.spec(&programs.hello, &[]), bench.spec(&programs.sleep, &[]));
    exit_of(&*bench.start(ended.clone()).await).await;
    let container = bench.start(running.clone()).await;
    let known = bench.provider.containers().await;
    let find = |spec: &ContainerSpec| known.iter().find(|known| known.spec == *spec).expect("it is known");
    assert_eq!(find(&ended).exit.as_ref().map(|exit| exit.cause), Some(Cause::Exited(0)));
    assert!(find(&running).exit.is_none());
    assert!(find(&running).started_at <= exit_of_stopped(&*find(&running).container).await.finished_at);
    assert!(!is_running(&*container), "a known container is the same container");
    for spec in [&ended, &running] {
        bench.provider.remove(&spec.id);
        bench.provider.remove(&spec.id);
        bench.provider.remove_pod(&spec.pod.uid);
    }
    let known = bench.provider.containers().await;
    assert!(!known.iter().any(|known| known.spec.id == ended.id || known.spec.id == running.id));
    let container = bench.start(bench.spec(&programs.spin, &[])).await;
    let id =
        bench.provider.containers().await.into_iter().find(|known| known.exit.is_none()).unwrap().spec.id;
    bench.provider.remove(&id);
    assert_eq!(exit_of(&*container).await.cause, Cause::Killed, "a removed container does not run on");
}

async fn exit_of_stopped(container: &dyn Container) -> Exit {
    container.stop(Duration::from_secs(1));
    exit_of(container).await
}

async fn check_refusals(bench: &Bench<'_>, programs: &Programs) {
    let refused = bench.provider.prepare(&programs.garbage).await;
    assert!(matches!(refused, Err(PrepareError::Invalid(_))), "{refused:?}");
    let mut spec = bench.spec(&programs.hello, &[]);
    spec.root = bench.folder.join("does-not-exist");
    assert!(matches!(bench.provider.start(spec).await, Err(StartError::Invalid(_))));
}
