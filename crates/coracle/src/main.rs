//! A Kubernetes node for WebAssembly.

mod cluster;
mod flags;
mod images;
mod logind;
mod node;
mod settings;
mod signals;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use clap::error::ErrorKind;
use coracle_kubelet::Stop;
use tokio::task::JoinSet;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

use flags::{Arguments, Command, NodeFlags};
use images::ImageSurroundings;
use settings::{Settings, Surroundings};
use signals::Signals;

/// The threads for file work at most: a burst of starts shall not become hundreds of threads.
const FILE_THREADS: usize = 16;

/// The exit code for a command line that cannot be.
const USAGE: u8 = 2;

/// The exit code for everything else that keeps the node from running.
const FAILURE: u8 = 1;

fn main() -> ExitCode {
    match Arguments::try_parse() {
        Ok(Arguments { command: Command::Compile { arguments } }) => {
            coracle_wasi_provider::compile_main(arguments)
        }
        Ok(Arguments { command: Command::Node(flags) }) => run_node(*flags),
        Err(error) if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            fail(USAGE, "a command is missing: 'coracle node' joins a cluster, 'coracle --help' tells more")
        }
        Err(error) if error.use_stderr() => fail(USAGE, &first_paragraph(&error.to_string())),
        Err(help) => help.exit(),
    }
}

fn run_node(flags: NodeFlags) -> ExitCode {
    let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let surroundings = Surroundings {
        hostname,
        kubeconfig: std::env::var_os("KUBECONFIG"),
        images: ImageSurroundings::read(),
    };
    let settings = match Settings::check(flags, &surroundings) {
        Ok(settings) => settings,
        Err(error) => return fail(USAGE, &error.to_string()),
    };
    coracle_wasi_provider::raise_descriptor_limit();
    begin_logging();
    match in_runtime(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(FAILURE, &format!("{error:#}")),
    }
}

/// What is logged when `RUST_LOG` does not say. The client's own errors come back to us, to be told with what they
/// mean.
const LOG_FILTER: &str = "info,kube_client::client::builder=off";

fn begin_logging() {
    let wanted = std::env::var("RUST_LOG").ok().filter(|filter| !filter.is_empty());
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .parse_lossy(wanted.as_deref().unwrap_or(LOG_FILTER));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
}

fn in_runtime(settings: Settings) -> anyhow::Result<()> {
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        anyhow::bail!("a second cryptography provider is installed");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("agent")
        .max_blocking_threads(FILE_THREADS)
        .build()
        .context("the agent's threads cannot be started")?;
    let outcome = runtime.block_on(until_stopped(settings));
    // What still reads or writes must not hold up the end.
    runtime.shutdown_background();
    outcome
}

async fn until_stopped(settings: Settings) -> anyhow::Result<()> {
    let stop = Stop::default();
    let signals = Signals::listen().context("the signals cannot be listened to")?;
    let mut listeners = JoinSet::new();
    let grace = settings.shutdown_grace.total();
    listeners.spawn(signals.obey(stop.clone(), grace));
    if !grace.is_zero() {
        listeners.spawn(logind::obey(stop.machine.clone(), grace));
    }
    Box::pin(node::run(settings, stop)).await
}

/// Says on one line why there is no node.
fn fail(code: u8, why: &str) -> ExitCode {
    let line = why.split_whitespace().collect::<Vec<_>>().join(" ");
    // There is nowhere to complain when standard error is closed.
    let _ = writeln!(io::stderr(), "coracle: {line}");
    ExitCode::from(code)
}

/// What clap says, without its advice.
fn first_paragraph(text: &str) -> String {
    let text = text.strip_prefix("error: ").unwrap_or(text);
    text.split("\n\n").next().unwrap_or(text).to_owned()
}
