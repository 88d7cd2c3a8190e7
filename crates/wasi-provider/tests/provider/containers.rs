//! What a guest sees and how its run ends, with WebAssembly's own cases.

use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use coracle_lifecycle::{Cause, ContainerSpec, Mount, Provider};
use coracle_testing::conformance::{Bench, exit_of, is_running, stop, time_to_stop};
use coracle_wasi_provider::WasiProvider;

use crate::machine::{self, component, guest, image};

/// A provider and its folder; both go when the test ends.
struct Machine {
    folder: tempfile::TempDir,
    provider: WasiProvider,
}

impl Machine {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let provider = machine::provider(folder.path());
        Self { folder, provider }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn bench(&self) -> Bench<'_> {
        Bench::new(&self.provider, self.path())
    }
}

fn log_lines(spec: &ContainerSpec) -> Vec<String> {
    let content = fs::read(&spec.log.path).unwrap();
    let content: String = content.iter().map(|byte| char::from(*byte)).collect();
    content.split_terminator('\n').map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
}

#[tokio::test]
async fn output_goes_to_the_log_as_it_is() {
    let machine = Machine::new();
    let bench = machine.bench();
    for make in [guest, component] {
        let run = async |name| {
            let spec = bench.spec(&make(machine.path(), name), &[]);
            assert_eq!(bench.run(spec.clone()).await.0.cause, Cause::Exited(0));
            log_lines(&spec)
        };
        assert_eq!(run("stdout-stderr").await, ["stdout F to standard output", "stderr F to standard error"]);
        assert_eq!(
            run("not-utf8").await,
            ["stdout F before", "stdout F \u{ff}\u{fe}\u{80}\u{c3}\u{28}", "stdout F after"]
        );
        let pieces = run("long-line").await;
        let shape: Vec<_> = pieces.iter().map(|line| (&line[..9], line.len() - 9)).collect();
        assert_eq!(shape, [("stdout P ", 16 << 10), ("stdout F ", 4 << 10)]);
        let many = run("many-lines").await;
        let expected: Vec<_> = (1..=1000).map(|number| format!("stdout F line {number:04}")).collect();
        assert_eq!(many, expected);
    }
}

#[tokio::test]
async fn a_trap_tells_what_happened_and_where() {
    let machine = Machine::new();
    let bench = machine.bench();
    let (exit, _) = bench.run(bench.spec(&guest(machine.path(), "trap"), &[])).await;
    assert_eq!(exit.cause, Cause::Trapped(134));
    let message = exit.message.unwrap();
    assert!(message.starts_with("wasm trap: wasm `unreachable` instruction executed"), "{message}");
    assert!(message.contains("wasm backtrace"), "{message}");
    let (exit, _) = bench.run(bench.spec(&guest(machine.path(), "stack-overflow"), &[])).await;
    assert_eq!(exit.cause, Cause::Trapped(139));
    let message = exit.message.unwrap();
    assert!(message.contains("call stack exhausted") && message.len() <= 2048, "{message}");
    let text =
        r#"(module (memory 1) (func $reads_too_far (export "_start") (drop (i32.load (i32.const -1)))))"#;
    let bounds = image(machine.path(), "bounds", &wat::parse_str(text).unwrap());
    let (exit, _) = bench.run(bench.spec(&bounds, &[])).await;
    assert_eq!(exit.cause, Cause::Trapped(139));
    assert!(exit.message.unwrap().contains("reads_too_far"));
}

#[tokio::test]
async fn components_end_with_their_own_codes() {
    let machine = Machine::new();
    let bench = machine.bench();
    let code = bench.run(bench.spec(&guest(machine.path(), "component-exit-code"), &[])).await.0.cause;
    assert_eq!(code, Cause::Exited(42));
    // Without `exit-with-code` a component can only say that it failed.
    let adapted = bench.run(bench.spec(&component(machine.path(), "exit-code"), &["7"])).await.0.cause;
    assert_eq!(adapted, Cause::Exited(1));
    let failing = r#"(component
        (core module $program (func (export "run") (result i32) (i32.const 1)))
        (core instance $running (instantiate $program))
        (func $run (result (result)) (canon lift (core func $running "run")))
        (instance $exported (export "run" (func $run)))
        (export "wasi:cli/run@0.2.0" (instance $exported)))"#;
    let failing = image(machine.path(), "failing", &wat::parse_str(failing).unwrap());
    assert_eq!(bench.run(bench.spec(&failing, &[])).await.0.cause, Cause::Exited(1));
}

#[tokio::test]
async fn concurrent_components_run() {
    let machine = Machine::new();
    let bench = machine.bench();
    let text = r#"(component
        (core module $program
            (func (export "run") (result i32) (i32.const 1))
            (func (export "callback") (param i32 i32 i32) (result i32) (unreachable)))
        (core instance $running (instantiate $program))
        (type $run-type (func async (result (result))))
        (func $run (type $run-type) (canon lift (core func $running "run")))
        (instance $exported (export "run" (func $run)))
        (export "wasi:cli/run@0.3.0" (instance $exported)))"#;
    let concurrent = image(machine.path(), "concurrent", &wat::parse_str(text).unwrap());
    let kind = machine.provider.prepare(&concurrent).await.unwrap();
    assert_eq!(kind.0, "wasi:cli/command@0.3 component");
    assert_eq!(bench.run(bench.spec(&concurrent, &[])).await.0.cause, Cause::Exited(1));
}

#[tokio::test]
async fn concurrent_components_see_what_others_see() {
    let machine = Machine::new();
    let bench = machine.bench();
    let program = machine::built(machine.path(), "command-concurrent-rust");
    let run = async |args: &[&str]| {
        let mut spec = bench.spec(&program, args);
        spec.env = vec![("B".to_owned(), "2".to_owned()), ("A".to_owned(), "1".to_owned())];
        fs::write(spec.root.join("own"), "of the container\n").unwrap();
        let (exit, _) = bench.run(spec.clone()).await;
        (exit.cause.exit_code(), log_lines(&spec))
    };
    let ended =
        |code, lines: &[&str]| (code, lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>());
    assert_eq!(run(&["environment"]).await, ended(0, &["stdout F A=1", "stdout F B=2"]));
    assert_eq!(run(&["complain", "no"]).await, ended(0, &["stderr F no"]));
    assert_eq!(run(&["show", "/", "own"]).await, ended(0, &["stdout F of the container"]));
    assert_eq!(run(&["show", "/", "../own"]).await, ended(0, &["stdout F ErrorCode::NotPermitted"]));
    assert_eq!(run(&["copy"]).await, ended(0, &[]));
    assert_eq!(run(&["nothing known"]).await, ended(1, &[]));
}

#[tokio::test]
async fn a_memory_limit_holds_from_the_first_page_and_for_data() {
    let machine = Machine::new();
    let bench = machine.bench();
    for make in [guest, component] {
        let mut spec = bench.spec(&make(machine.path(), "hello"), &[]);
        spec.limits.memory = Some(1000);
        let (exit, _) = bench.run(spec).await;
        assert_eq!((exit.cause, exit.cause.exit_code()), (Cause::OutOfMemory, 137));
        assert!(exit.message.unwrap().contains("1000 bytes"));
    }
    let container = bench.start(bench.spec(&guest(machine.path(), "sleep"), &[])).await;
    while container.usage().await.memory == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(container.usage().await.memory, 64 << 10);
    stop(&*container, Duration::ZERO).await;
    assert!(container.usage().await.cpu > Duration::ZERO);
    while container.usage().await.memory > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_guest_sees_its_files_and_no_others() {
    let machine = Machine::new();
    let bench = machine.bench();
    let volume = machine.path().join("volume");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("data"), "of the volume\n").unwrap();
    for make in [guest, component] {
        let cat = |directory: &str, file: &str| {
            let mut spec = bench.spec(&make(machine.path(), "cat-file"), &[directory, file]);
            fs::write(spec.root.join("own"), "of the container\n").unwrap();
            let target = "/mnt/volume".to_owned();
            spec.mounts.push(Mount { source: volume.clone(), target, read_only: true });
            spec
        };
        assert_eq!(bench.run(cat("/", "own")).await.1, "of the container\n");
        assert_eq!(bench.run(cat("/mnt/volume", "data")).await.1, "of the volume\n");
        for (directory, file) in
            [("/", "../volume/data"), ("/", "/etc/passwd"), ("/mnt", "volume/data"), ("/tmp", "x")]
        {
            let (exit, text) = bench.run(cat(directory, file)).await;
            assert!(exit.cause != Cause::Exited(0) && text.is_empty(), "{directory} {file}: {exit:?}");
        }
    }
}

/// Tries to make the file `made` in the first preopened directory; ends with WASI's error number.
const MAKE_FILE: &str = r#"(module
    (import "wasi_snapshot_preview1" "path_open"
        (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
    (memory (export "memory") 1)
    (data (i32.const 0) "made")
    (func (export "_start")
        (call $proc_exit (call $path_open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 4)
            (i32.const 1) (i64.const 64) (i64.const 0) (i32.const 0) (i32.const 8)))))"#;

#[tokio::test]
async fn a_read_only_root_cannot_be_written() {
    let machine = Machine::new();
    let bench = machine.bench();
    let makes_file = image(machine.path(), "make-file", &wat::parse_str(MAKE_FILE).unwrap());
    for read_only in [false, true] {
        let mut spec = bench.spec(&makes_file, &[]);
        spec.read_only_root = read_only;
        let made = spec.root.join("made");
        let (exit, _) = bench.run(spec).await;
        assert_eq!((exit.cause == Cause::Exited(0), made.exists()), (!read_only, !read_only), "{exit:?}");
    }
}

#[tokio::test]
async fn instantiation_belongs_to_the_run() {
    let machine = Machine::new();
    let bench = machine.bench();
    let container = bench.start(bench.spec(&guest(machine.path(), "spin-in-start-section"), &[])).await;
    assert!(is_running(&*container));
    assert_eq!(stop(&*container, Duration::from_secs(30)).await.cause, Cause::Stopped);
}

#[tokio::test]
async fn a_guest_blocked_in_the_system_is_stopped() {
    let machine = Machine::new();
    let bench = machine.bench();
    let spec = bench.spec(&guest(machine.path(), "cat-file"), &["/", "pipe"]);
    let pipe = spec.root.join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let container = bench.start(spec).await;
    assert!(is_running(&*container));
    assert_eq!(stop(&*container, Duration::from_secs(30)).await.cause, Cause::Stopped);
    // Lets go of the thread that waits for somebody to write.
    let _ = rustix::fs::open(&pipe, rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::NONBLOCK, 0.into());
}

/// One thread for all of them: each turn of the others that a stop had to wait for would show.
#[tokio::test]
async fn stops_do_not_wait_for_the_others_that_compute() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = machine::settings(folder.path());
    settings.threads = NonZeroUsize::new(1);
    let provider = WasiProvider::new(settings).unwrap();
    let bench = Bench::new(&provider, folder.path());
    let spin = guest(folder.path(), "spin");
    let mut containers = Vec::new();
    for _ in 0..100 {
        containers.push(bench.start(bench.spec(&spin, &[])).await);
    }
    containers.push(bench.start(bench.spec(&guest(folder.path(), "sleep"), &[])).await);
    let mut times = Vec::new();
    for container in containers.iter().rev().take(9) {
        times.push(time_to_stop(&**container, Duration::from_secs(30)).await);
    }
    times.sort();
    // The middle one, because other tests have the machine at the same time.
    assert!(times[4] < Duration::from_millis(100), "{times:?}");
}

#[tokio::test]
async fn what_runs_when_the_provider_goes_is_lost() {
    let machine = Machine::new();
    let bench = machine.bench();
    let container = bench.start(bench.spec(&guest(machine.path(), "spin"), &[])).await;
    drop(machine.provider);
    assert_eq!(exit_of(&*container).await.cause, Cause::Lost);
}
