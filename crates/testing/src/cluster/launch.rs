//! Starting the control plane's parts, and knowing when it is ready.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use kube::Client;
use tokio::time::MissedTickBehavior;

use super::components::{self, Ports};
use super::credentials::{ClientIdentity, Credentials, client_identity};
use super::{Options, bootstrap};
use crate::process::{Launch, Process};
use crate::tools::{Tool, Tools};
use crate::{kubeconfig, ports};

/// Long enough for a machine that compiles meanwhile; a control plane alone is ready in about three seconds.
pub(super) const READY_LIMIT: Duration = Duration::from_mins(1);

const POLL: Duration = Duration::from_millis(50);

/// How often a start is tried with other ports after another process was quicker to take one.
const TRIES: usize = 5;

/// The folder a cluster lives in and the programs it is made of.
pub(super) struct Site<'a> {
    pub(super) folder: &'a Path,
    pub(super) tools: &'a Tools,
}

impl Site<'_> {
    pub(super) fn launch(&self, tool: Tool, arguments: Vec<String>) -> Launch {
        Launch {
            name: tool.name().to_owned(),
            program: self.tools.path(tool).to_owned(),
            arguments,
            environment: Vec::new(),
            log: self.folder.join(format!("{}.log", tool.name())),
        }
    }
}

/// etcd and the API server, and how to start the latter again.
pub(super) struct Storage {
    pub(super) api_server: Process,
    pub(super) api_server_launch: Launch,
    pub(super) etcd: Process,
    pub(super) server: String,
}

/// Starts etcd and the API server on free ports, makes the administrator's identity, and waits until the API server is
/// ready.
pub(super) async fn storage(
    site: &Site<'_>,
    keys: &Credentials,
    options: Options,
    services: &str,
) -> anyhow::Result<(Storage, ClientIdentity)> {
    for _ in 0..TRIES {
        let ports = Ports { etcd: ports::free()?, etcd_peers: ports::free()?, api_server: ports::free()? };
        let storage = spawn_storage(site, keys, options, services, ports)?;
        let admin = client_identity(&keys.authority, &storage.server, "admin", "admin", &["system:masters"])?;
        match ready(&admin.kubeconfig, &[&storage.etcd, &storage.api_server]).await {
            Ok(()) => return Ok((storage, admin)),
            Err(error) if error.to_string().contains("address already in use") => {}
            Err(error) => return Err(error),
        }
    }
    bail!("no free ports for a control plane in {TRIES} tries")
}

/// Starts the controller manager and the scheduler.
pub(super) fn controllers(
    site: &Site<'_>,
    keys: &Credentials,
    options: Options,
    server: &str,
    pods: &str,
) -> anyhow::Result<(Process, Process)> {
    let kubeconfig = |name: &str| {
        let user = format!("system:{name}");
        client_identity(&keys.authority, server, name, &user, &[]).map(|identity| identity.kubeconfig)
    };
    let manager = kubeconfig(Tool::ControllerManager.name())?;
    let manager = components::controller_manager(&manager, keys, options, pods);
    let scheduler = components::scheduler(&kubeconfig(Tool::Scheduler.name())?, options);
    Ok((
        Process::spawn(&site.launch(Tool::ControllerManager, manager))?,
        Process::spawn(&site.launch(Tool::Scheduler, scheduler))?,
    ))
}

fn spawn_storage(
    site: &Site<'_>,
    keys: &Credentials,
    options: Options,
    services: &str,
    ports: Ports,
) -> anyhow::Result<Storage> {
    let data = site.folder.join(format!("etcd-{}", ports.etcd));
    let etcd = site.launch(Tool::Etcd, components::etcd(ports, &data));
    let api_server = site.launch(Tool::ApiServer, components::api_server(ports, keys, options, services));
    Ok(Storage {
        etcd: Process::spawn(&etcd)?,
        api_server: Process::spawn(&api_server)?,
        api_server_launch: api_server,
        server: format!("https://127.0.0.1:{}", ports.api_server),
    })
}

/// Asks `/readyz` until it says yes, one of `processes` has ended, or the time is over. It is no resource, so it cannot
/// be watched.
pub(super) async fn ready(admin: &Path, processes: &[&Process]) -> anyhow::Result<()> {
    let client = kubeconfig::client(admin).await?;
    let deadline = Instant::now() + READY_LIMIT;
    let mut tick = tokio::time::interval(POLL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        for process in processes {
            if let Some(status) = process.status()? {
                bail!("it ended before the API server was ready, {status}; {}", process.tail());
            }
        }
        let request = http::Request::get("/readyz").body(Vec::new()).context("a request")?;
        match client.request_text(request).await {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > deadline => {
                let tails: Vec<_> = processes.iter().map(|process| process.tail()).collect();
                bail!("the API server is not ready after {READY_LIMIT:?}: {error}; {}", tails.join("\n"));
            }
            Err(_) => {}
        }
    }
}

/// Waits for what the controllers make; says which process ended if one did.
pub(super) async fn complete(client: &Client, processes: &[&Process; 2]) -> anyhow::Result<()> {
    let [manager, scheduler] = processes;
    tokio::select! {
        made = bootstrap::usable(client, "default") => {
            made.with_context(|| processes.map(Process::tail).join("\n"))
        }
        status = manager.exited() => bail!("it ended, {}; {}", status?, manager.tail()),
        status = scheduler.exited() => bail!("it ended, {}; {}", status?, scheduler.tail()),
    }
}
