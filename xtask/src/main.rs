//! The commands of the README: everything that is more than one line of cargo.

mod bench;
mod cargo;
mod check;
mod demo;
mod guests;
mod prerequisites;
mod progress;
mod stage;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use coracle_testing::{tools, workspace};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The commands of the Coracle workspace")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Shows Coracle at work on a real control plane, and stays until Ctrl-C.
    Demo {
        /// Exit after showing: 0 if everything that was shown is right.
        #[arg(long)]
        once: bool,
    },
    /// Installs what the tests need and runs every check and test, as CI does.
    Test,
    /// Checks format, lints and licences; builds nothing that runs.
    Check,
    /// Builds the control plane, the registry and kubectl from their Go modules.
    Tools,
    /// Builds the guest programs.
    Guests,
    /// Measures how fast pods become Running, and what each of them costs.
    Bench {
        /// How many pods to run, once for each number.
        #[arg(long, value_delimiter = ',', default_value = "100,400")]
        pods: Vec<usize>,
        /// Each pod mounts a config map, a secret, a service account token and scratch space.
        #[arg(long)]
        volumes: bool,
        /// How many config maps all pods mount, with `--volumes`.
        #[arg(long, default_value_t = 1, requires = "volumes")]
        config_maps: usize,
        /// Measures images with files instead.
        #[arg(long, conflicts_with_all = ["pods", "volumes"])]
        images: bool,
        /// Measures instead what it costs to probe each pod once a second, against not to.
        #[arg(long, conflicts_with_all = ["images", "volumes"])]
        probes: bool,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Demo { once } => demo::run(once),
        Command::Test => test::run(),
        Command::Check => check::run(),
        Command::Tools => Ok(tools::build(progress::say)?),
        Command::Guests => guests::build_all(workspace()).map(drop),
        Command::Bench { images: true, .. } => bench::images::run(),
        Command::Bench { pods, probes: true, .. } => bench::run_probes(&pods),
        Command::Bench { pods, volumes, config_maps, .. } => {
            bench::run(&pods, volumes.then_some(config_maps))
        }
    }
}
