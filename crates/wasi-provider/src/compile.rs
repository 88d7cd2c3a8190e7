//! Compiling, in a child process: the compiler can be neither capped nor cancelled in this one.
//!
//! The parent's half is [`Compiler`], the child's is [`compile_main`].

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use coracle_lifecycle::{Digest, PrepareError};
use rustix::process::{Resource, Rlimit, setrlimit};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;

use crate::engine::{Layout, engine, hexadecimal};

/// The child's exit code for a program that is not sound.
const INVALID: u8 = 65;
/// The child's exit code for any other failure it can name.
const FAILED: u8 = 70;
/// The child's exit code when its memory does not suffice; more often the allocator ends it.
const OUT_OF_MEMORY: u8 = 75;
/// What the child may say of a failure.
const MAX_MESSAGE: u64 = 2 << 10;
/// The signal by which the system ends a process that used up its CPU time.
const SIGXCPU: i32 = 24;
const SIGABRT: i32 = 6;
const SIGKILL: i32 = 9;

/// What compiling one program may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompileLimits {
    /// Address space of the compiler's process, in bytes.
    pub memory: u64,
    /// CPU time.
    pub cpu: Duration,
    /// Time by the clock.
    pub time: Duration,
}

impl Default for CompileLimits {
    /// Enough for the largest language runtimes of today, which take 6 s on two cores.
    fn default() -> Self {
        Self { memory: 4 << 30, cpu: Duration::from_mins(2), time: Duration::from_mins(5) }
    }
}

/// Runs compilers, as many at a time as there are permits.
pub(crate) struct Compiler {
    program: PathBuf,
    limits: CompileLimits,
    permits: Semaphore,
    compiled: AtomicU64,
}

/// What to compile, and where to.
pub(crate) struct Job<'a> {
    pub(crate) module: &'a Path,
    pub(crate) digest: &'a Digest,
    pub(crate) layout: Layout,
    pub(crate) output: &'a Path,
}

impl Compiler {
    pub(crate) fn new(program: PathBuf, limits: CompileLimits, at_a_time: usize) -> Self {
        Self { program, limits, permits: Semaphore::new(at_a_time), compiled: AtomicU64::new(0) }
    }

    /// How many programs were compiled.
    pub(crate) fn compiled(&self) -> u64 {
        self.compiled.load(Ordering::Relaxed)
    }

    pub(crate) async fn compile(&self, job: &Job<'_>) -> Result<(), PrepareError> {
        let failed = |error: io::Error| PrepareError::Failed(format!("the compiler cannot be run: {error}"));
        let _permit = self.permits.acquire().await.map_err(|_| failed(io::ErrorKind::Other.into()))?;
        let mut child = self.command(job).spawn().map_err(failed)?;
        let Ok(outcome) = tokio::time::timeout(self.limits.time, outcome(&mut child)).await else {
            child.kill().await.map_err(failed)?;
            let seconds = self.limits.time.as_secs_f32();
            return Err(PrepareError::TooExpensive(format!("compiling took more than {seconds} s")));
        };
        let (status, said) = outcome.map_err(failed)?;
        verdict(status, said)?;
        self.compiled.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn command(&self, job: &Job<'_>) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("compile")
            .arg(job.module)
            .arg(job.output)
            .arg(job.digest.as_str())
            .arg(job.layout.name());
        command.arg(self.limits.memory.to_string()).arg(self.limits.cpu.as_secs().to_string());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .env_clear()
            .kill_on_drop(true);
        command
    }
}

async fn outcome(child: &mut Child) -> io::Result<(ExitStatus, String)> {
    let mut said = Vec::new();
    if let Some(mut stderr) = child.stderr.take() {
        (&mut stderr).take(MAX_MESSAGE).read_to_end(&mut said).await?;
        // Or it would block, or be ended, when it says more.
        tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await?;
    }
    Ok((child.wait().await?, String::from_utf8_lossy(&said).trim().to_owned()))
}

fn verdict(status: ExitStatus, said: String) -> Result<(), PrepareError> {
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) if code == i32::from(INVALID) => Err(PrepareError::Invalid(said)),
        (Some(code), _) if code == i32::from(OUT_OF_MEMORY) => Err(too_much_memory(&said)),
        (_, Some(SIGXCPU)) => {
            Err(PrepareError::TooExpensive("compiling took more CPU time than it may".to_owned()))
        }
        (_, Some(SIGKILL)) => {
            Err(PrepareError::TooExpensive("the compiler was killed, perhaps for its memory".to_owned()))
        }
        (_, Some(SIGABRT)) if said.contains("memory allocation") => Err(too_much_memory(&said)),
        _ => Err(PrepareError::Failed(format!("the compiler failed ({status}): {said}"))),
    }
}

fn too_much_memory(said: &str) -> PrepareError {
    PrepareError::TooExpensive(format!("compiling took more memory than it may: {said}"))
}

/// The whole of the process that compiles: `<module> <output> <digest> <layout> <bytes of memory> <seconds of CPU>`.
/// Writes the compiled program to the output, on disk when this returns; says on standard error why it did not.
pub fn compile_main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let outcome = Request::parse(arguments).and_then(|request| {
        request.limit_process().map_err(|error| Failure::Failed(format!("limits cannot be set: {error}")))?;
        request.compile()
    });
    let (code, message) = match outcome {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Invalid(message)) => (INVALID, message),
        Err(Failure::Failed(message)) => (FAILED, message),
        Err(Failure::OutOfMemory(message)) => (OUT_OF_MEMORY, message),
    };
    let _ = writeln!(io::stderr(), "{message}");
    ExitCode::from(code)
}

enum Failure {
    Invalid(String),
    Failed(String),
    OutOfMemory(String),
}

struct Request {
    module: PathBuf,
    output: PathBuf,
    digest: Digest,
    layout: Layout,
    memory: u64,
    cpu: u64,
}

impl Request {
    fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, Failure> {
        let arguments: Vec<_> = arguments.into_iter().collect();
        Self::from_parts(&arguments).ok_or_else(|| {
            Failure::Failed("usage: compile <module> <output> <digest> <layout> <bytes> <seconds>".to_owned())
        })
    }

    fn from_parts(arguments: &[OsString]) -> Option<Self> {
        let [module, output, digest, layout, memory, cpu] = arguments else { return None };
        Some(Self {
            module: module.into(),
            output: output.into(),
            digest: Digest::parse(digest.to_str()?).ok()?,
            layout: Layout::parse(layout.to_str()?)?,
            memory: memory.to_str()?.parse().ok()?,
            cpu: cpu.to_str()?.parse().ok()?,
        })
    }

    fn limit_process(&self) -> io::Result<()> {
        for (resource, limit) in [(Resource::As, self.memory), (Resource::Cpu, self.cpu), (Resource::Core, 0)]
        {
            setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) })?;
        }
        Ok(())
    }

    fn compile(&self) -> Result<(), Failure> {
        let bytes = self.verified_module()?;
        let failed = |error: wasmtime::Error| Failure::Failed(format!("{error:#}"));
        let engine = engine(self.layout).map_err(failed)?;
        let compiled = if wasmparser::Parser::is_component(&bytes) {
            engine.precompile_component(&bytes)
        } else {
            engine.precompile_module(&bytes)
        };
        let compiled =
            compiled.map_err(|error| Failure::Invalid(format!("invalid WebAssembly program: {error:#}")))?;
        self.write(&compiled).map_err(|error| Failure::Failed(format!("{}: {error}", self.output.display())))
    }

    fn verified_module(&self) -> Result<Vec<u8>, Failure> {
        let name = self.module.display();
        let bytes = fs::read(&self.module).map_err(|error| match error.kind() {
            io::ErrorKind::OutOfMemory => Failure::OutOfMemory(format!("{name}: {error}")),
            _ => Failure::Failed(format!("{name}: {error}")),
        })?;
        if hexadecimal(&Sha256::digest(&bytes)) == self.digest.hex() {
            Ok(bytes)
        } else {
            Err(Failure::Failed(format!("{name} is damaged: its digest is not {}", self.digest)))
        }
    }

    fn write(&self, compiled: &[u8]) -> io::Result<()> {
        let mut file = File::create(&self.output)?;
        file.write_all(compiled)?;
        file.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_childs_end_is_told_in_the_ports_words() {
        let end = |raw| verdict(ExitStatus::from_raw(raw), "memory allocation of 9 bytes failed".to_owned());
        assert_eq!(end(0), Ok(()));
        assert!(matches!(end(i32::from(INVALID) << 8), Err(PrepareError::Invalid(_))));
        assert!(matches!(end(i32::from(FAILED) << 8), Err(PrepareError::Failed(_))));
        assert!(matches!(end(i32::from(OUT_OF_MEMORY) << 8), Err(PrepareError::TooExpensive(_))));
        for signal in [SIGXCPU, SIGABRT, SIGKILL] {
            assert!(matches!(end(signal), Err(PrepareError::TooExpensive(_))), "{signal}");
        }
        assert!(matches!(end(11), Err(PrepareError::Failed(_))));
    }

    #[test]
    fn what_the_parent_says_the_child_understands() {
        let compiler = Compiler::new("/bin/false".into(), CompileLimits::default(), 1);
        let digest = Digest::parse(&format!("sha256:{}", "0".repeat(64))).unwrap();
        let job =
            Job { module: Path::new("a b"), digest: &digest, layout: Layout::Mapped, output: Path::new("c") };
        let command = compiler.command(&job);
        let mut arguments = command.as_std().get_args().map(ToOwned::to_owned);
        assert_eq!(arguments.next().unwrap(), "compile");
        let request = Request::from_parts(&arguments.collect::<Vec<_>>()).unwrap();
        assert_eq!((request.module, request.output), ("a b".into(), "c".into()));
        assert_eq!((request.digest, request.layout), (digest, Layout::Mapped));
        assert_eq!((request.memory, request.cpu), (4 << 30, 120));
    }
}
