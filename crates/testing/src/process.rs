//! A child process in a group of its own, with its output in a file.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::reaper;

/// The shell waits for one line before it becomes the program: until then the reaper may not know of it.
const GATE: &str = r#"read -r go && exec "$0" "$@" </dev/null"#;

/// Variables by which a program would ask a proxy for an address on loopback.
const PROXIES: [&str; 6] =
    ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"];

/// Enough for a backtrace and the line above it.
const TAIL_LINES: usize = 100;

/// What to start.
#[derive(Clone)]
pub(crate) struct Launch {
    pub(crate) name: String,
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
    /// Standard output and standard error are appended here.
    pub(crate) log: PathBuf,
}

/// A running or ended child. Dropping it kills its process group.
pub(crate) struct Process {
    name: String,
    log: PathBuf,
    pid: Pid,
    child: Mutex<Child>,
}

impl Process {
    pub(crate) fn spawn(launch: &Launch) -> anyhow::Result<Self> {
        if !launch.program.is_file() {
            bail!("there is no program {}", launch.program.display());
        }
        let mut child = gated(launch)?.spawn().with_context(|| format!("starting {}", launch.name))?;
        let gate = child.stdin.take();
        let pid = Pid::from_child(&child);
        let process =
            Self { name: launch.name.clone(), log: launch.log.clone(), pid, child: Mutex::new(child) };
        reaper::owns_group(pid).context("telling the reaper of a process")?;
        gate.context("the child has no standard input")?.write_all(b"go\n")?;
        Ok(process)
    }

    pub(crate) fn id(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// How it ended, or `None` while it runs.
    pub(crate) fn status(&self) -> anyhow::Result<Option<ExitStatus>> {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let status = child.try_wait().with_context(|| format!("asking for the end of {}", self.name))?;
        if status.is_some() {
            self.release();
        }
        Ok(status)
    }

    /// Waits for its end; may be dropped and asked again.
    pub(crate) async fn exited(&self) -> anyhow::Result<ExitStatus> {
        if let Some(status) = self.status()? {
            return Ok(status);
        }
        let pidfd = rustix::process::pidfd_open(self.pid, PidfdFlags::NONBLOCK)
            .with_context(|| format!("watching {}", self.name))?;
        #[expect(
            deprecated,
            reason = "an OwnedFd stays open and the same, which is what its unsafe successor asks"
        )]
        let pidfd = AsyncFd::with_interest(pidfd, Interest::READABLE)?;
        let _ended = pidfd.readable().await?;
        self.status()?.with_context(|| format!("{} was said to have ended, but runs", self.name))
    }

    /// Sends a signal to the process itself, not to its group; does nothing once it ended.
    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        if self.status()?.is_some() {
            return Ok(());
        }
        rustix::process::kill_process(self.pid, signal)
            .with_context(|| format!("sending {signal:?} to {}", self.name))
    }

    /// Sends a signal and waits at most `limit` for the end.
    pub(crate) async fn end(&self, signal: Signal, limit: Duration) -> anyhow::Result<ExitStatus> {
        self.signal(signal)?;
        match tokio::time::timeout(limit, self.exited()).await {
            Ok(status) => status,
            Err(_) => bail!("{} still runs {limit:?} after {signal:?}; {}", self.name, self.tail()),
        }
    }

    /// The last lines of its log, with a heading, to be put into an error.
    pub(crate) fn tail(&self) -> String {
        tail(&self.name, &self.log)
    }

    /// Its children must not outlive it, and its number is free for others from now on.
    fn release(&self) {
        let _nothing_left = rustix::process::kill_process_group(self.pid, Signal::KILL);
        let _reaper_gone = reaper::released_group(self.pid);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(None) = self.status() {
            let _ended_meanwhile = rustix::process::kill_process_group(self.pid, Signal::KILL);
            let _ended = self.child.get_mut().unwrap_or_else(PoisonError::into_inner).wait();
            let _reaper_gone = reaper::released_group(self.pid);
        }
    }
}

fn gated(launch: &Launch) -> anyhow::Result<Command> {
    let log = open_log(&launch.log)?;
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", GATE])
        .arg(&launch.program)
        .args(&launch.arguments)
        .envs(launch.environment.iter().map(|(name, value)| (name, value)))
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(log.try_clone()?)
        .stderr(log);
    for proxy in PROXIES {
        command.env_remove(proxy);
    }
    Ok(command)
}

fn open_log(path: &Path) -> anyhow::Result<File> {
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.with_context(|| format!("opening the log {}", path.display()))
}

fn tail(name: &str, log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(TAIL_LINES)..];
    format!("the end of the log of {name}:\n{}", last.join("\n"))
}
