//! Creating pods from several clients at once, and seeing when each of them runs.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use coracle_testing::Cluster;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// How many clients create pods at the same time.
pub(super) const CLIENTS: usize = 8;

/// The name of the secret that pods mount.
const KEYS: &str = "bench";

const LIMIT: Duration = Duration::from_mins(5);

/// What each pod is.
#[derive(Clone)]
pub(super) struct Template {
    /// The reference of its image.
    pub(super) image: String,
    /// How many config maps it mounts, beside a secret, a service account token and scratch space; `None` for a pod
    /// without volumes.
    pub(super) config_maps: Option<usize>,
    /// The port of this machine that a readiness probe asks once a second.
    pub(super) probed: Option<u16>,
}

/// When each pod's creation began, and when it was seen Running.
pub(super) struct Started {
    /// From creation to Running, shortest first.
    delays: Vec<Duration>,
    whole: Duration,
}

impl Started {
    fn new(created: &HashMap<String, Instant>, running: &HashMap<String, Instant>) -> anyhow::Result<Self> {
        let delay = |(name, at): (&String, &Instant)| Some(running.get(name)?.duration_since(*at));
        let delays: Option<Vec<_>> = created.iter().map(delay).collect();
        let mut delays = delays.context("a pod was never seen Running")?;
        delays.sort_unstable();
        let first = created.values().min().context("no pod was created")?;
        let last = running.values().max().context("no pod ran")?;
        Ok(Self { delays, whole: last.duration_since(*first) })
    }

    /// The delay that so many percent of the pods do not exceed.
    pub(super) fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.delays.len() * percent).div_ceil(100);
        self.delays.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    }

    /// Pods by the time from the first creation to the last pod Running.
    pub(super) fn per_second(&self) -> f64 {
        let pods = u32::try_from(self.delays.len()).unwrap_or(u32::MAX);
        f64::from(pods) / self.whole.as_secs_f64()
    }
}

/// Runs so many pods in a namespace of their own. They are left running when there are several; one alone is a
/// warm-up and is deleted.
pub(super) async fn run(cluster: &Cluster, template: &Template, pods: usize) -> anyhow::Result<Started> {
    let namespace = cluster.namespace().await?;
    let api = Api::namespaced(cluster.admin().await?, &namespace);
    if let Some(config_maps) = template.config_maps {
        create_objects(cluster.admin().await?, &namespace, config_maps).await?;
    }
    let mut clients = Vec::new();
    for _ in 0..CLIENTS.min(pods) {
        clients.push(cluster.admin().await?);
    }
    let mut events = Box::pin(watcher(api.clone(), watcher::Config::default()));
    while !matches!(events.try_next().await?, Some(Event::InitDone)) {}
    let creating = create(clients, &namespace, template, pods);
    let seeing = async {
        let seen = all_running(&mut events, pods);
        tokio::time::timeout(LIMIT, seen).await.context("not all pods ran in time")?
    };
    let (created, running) = tokio::try_join!(creating, seeing)?;
    let started = Started::new(&created, &running)?;
    if pods == 1 {
        api.delete_collection(&DeleteParams::default().grace_period(0), &ListParams::default()).await?;
        let gone = async {
            while !matches!(events.try_next().await?, Some(Event::Delete(_))) {}
            anyhow::Ok(())
        };
        tokio::time::timeout(LIMIT, gone).await.context("the first pod did not go")??;
    }
    Ok(started)
}

/// Runs one pod after the other, of each template in turns, in a namespace where one of the last template runs all the time:
/// what that one refers to is on the node already. Gives how long the API server took for a token, once in each round.
pub(super) async fn run_in_turns(
    cluster: &Cluster,
    templates: [&Template; 2],
    rounds: usize,
) -> anyhow::Result<Vec<Duration>> {
    let namespace = cluster.namespace().await?;
    let client = cluster.admin().await?;
    if let Some(config_maps) = templates.iter().find_map(|template| template.config_maps) {
        create_objects(client.clone(), &namespace, config_maps).await?;
    }
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let accounts: Api<ServiceAccount> = Api::namespaced(client, &namespace);
    let mut tokens = Vec::new();
    let mut events = Box::pin(watcher(pods.clone(), watcher::Config::default()));
    let standing = pods.create(&PostParams::default(), &pod(0, templates[1])?).await?;
    let request = token_request(&standing);
    sees(&mut events, &standing.name_any(), is_of_running).await?;
    for (number, template) in templates.into_iter().cycle().take(rounds * 2).enumerate() {
        let name = pods.create(&PostParams::default(), &pod(number + 1, template)?).await?.name_any();
        sees(&mut events, &name, is_of_running).await?;
        pods.delete(&name, &DeleteParams::default().grace_period(0)).await?;
        sees(&mut events, &name, |event| matches!(event, Event::Delete(_))).await?;
        if template.config_maps.is_some() {
            let asked = Instant::now();
            accounts.create_token_request("default", &PostParams::default(), &request).await?;
            tokens.push(asked.elapsed());
        }
    }
    Ok(tokens)
}

/// A request for a token as a node makes it.
fn token_request(pod: &Pod) -> TokenRequest {
    let pod = BoundObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
    };
    let spec = TokenRequestSpec { bound_object_ref: Some(pod), ..TokenRequestSpec::default() };
    TokenRequest { spec: Some(spec), ..TokenRequest::default() }
}

/// Waits for an event of one pod.
async fn sees(
    events: &mut (impl StreamExt<Item = watcher::Result<Event<Pod>>> + Unpin),
    name: &str,
    is_meant: impl Fn(&Event<Pod>) -> bool,
) -> anyhow::Result<()> {
    let seen = async {
        loop {
            let event = events.next().await.context("the watch of the pods ended")??;
            let (Event::Apply(pod) | Event::InitApply(pod) | Event::Delete(pod)) = &event else { continue };
            if pod.name_any() == name && is_meant(&event) {
                return anyhow::Ok(());
            }
        }
    };
    tokio::time::timeout(LIMIT, seen).await.with_context(|| format!("pod {name} in time"))?
}

fn is_of_running(event: &Event<Pod>) -> bool {
    let (Event::Apply(pod) | Event::InitApply(pod)) = event else { return false };
    pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
}

/// Creates the pods, dealt out to the clients, and notes when each request began.
async fn create(
    clients: Vec<Client>,
    namespace: &str,
    template: &Template,
    pods: usize,
) -> anyhow::Result<HashMap<String, Instant>> {
    let mut tasks = JoinSet::new();
    let count = clients.len();
    for (first, client) in clients.into_iter().enumerate() {
        let api = Api::<Pod>::namespaced(client, namespace);
        let own: Vec<_> = (first..pods).step_by(count).map(|number| pod(number, template)).collect();
        tasks.spawn(async move {
            let mut created = Vec::with_capacity(own.len());
            for pod in own {
                let pod = pod?;
                let at = Instant::now();
                api.create(&PostParams::default(), &pod).await?;
                created.push((pod.name_any(), at));
            }
            anyhow::Ok(created)
        });
    }
    let mut created = HashMap::with_capacity(pods);
    while let Some(task) = tasks.join_next().await {
        created.extend(task??);
    }
    Ok(created)
}

/// Notes when each pod is first seen Running, until all are.
async fn all_running(
    events: &mut (impl StreamExt<Item = watcher::Result<Event<Pod>>> + Unpin),
    pods: usize,
) -> anyhow::Result<HashMap<String, Instant>> {
    let mut running = HashMap::with_capacity(pods);
    while running.len() < pods {
        let event = events.next().await.context("the watch of the pods ended")??;
        let (Event::Apply(pod) | Event::InitApply(pod)) = event else { continue };
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        match phase {
            Some("Running") => {
                running.entry(pod.name_any()).or_insert_with(Instant::now);
            }
            Some("Failed" | "Succeeded") => bail!("pod {} ended: {:?}", pod.name_any(), pod.status),
            _ => {}
        }
    }
    Ok(running)
}

fn pod(number: usize, template: &Template) -> anyhow::Result<Pod> {
    let arch = "kubernetes.io/arch";
    let mut pod = json!({
        "metadata": {"name": format!("sleep-{number}")},
        "spec": {
            "automountServiceAccountToken": template.config_maps.is_some(),
            "terminationGracePeriodSeconds": 0,
            "enableServiceLinks": false,
            "containers": [{"name": "sleep", "image": template.image, "imagePullPolicy": "IfNotPresent"}],
            "nodeSelector": {arch: "wasm32-wasi"},
            "tolerations": [{"key": arch, "operator": "Exists"}],
        },
    });
    if let Some(port) = template.probed {
        let request = json!({"host": "127.0.0.1", "port": port, "path": "/"});
        pod["spec"]["containers"][0]["readinessProbe"] =
            json!({"httpGet": request, "periodSeconds": 1, "timeoutSeconds": 5});
    }
    if let Some(config_maps) = template.config_maps {
        let mut volumes = vec![
            json!({"name": "keys", "secret": {"secretName": KEYS}}),
            json!({"name": "scratch", "emptyDir": {}}),
        ];
        let names = (0..config_maps).map(settings);
        volumes.extend(names.map(|name| json!({"name": name, "configMap": {"name": name}})));
        let mount = |volume: &Value| json!({"name": volume["name"], "mountPath": format!("/{}", volume["name"].as_str().unwrap_or_default())});
        pod["spec"]["containers"][0]["volumeMounts"] = volumes.iter().map(mount).collect();
        pod["spec"]["volumes"] = volumes.into();
    }
    Ok(serde_json::from_value(pod)?)
}

/// The name of a config map.
fn settings(number: usize) -> String {
    format!("settings-{number}")
}

/// Makes the objects that all pods with volumes share.
async fn create_objects(client: Client, namespace: &str, config_maps: usize) -> anyhow::Result<()> {
    let data = [("key".to_owned(), "value".to_owned())];
    let metadata = |name: String| ObjectMeta { name: Some(name), ..ObjectMeta::default() };
    let keys = Secret {
        string_data: Some(data.clone().into()),
        metadata: metadata(KEYS.to_owned()),
        ..Secret::default()
    };
    let parameters = PostParams::default();
    Api::namespaced(client.clone(), namespace).create(&parameters, &keys).await?;
    let objects = Api::namespaced(client, namespace);
    for number in 0..config_maps {
        let metadata = metadata(settings(number));
        let map = ConfigMap { data: Some(data.clone().into()), metadata, ..ConfigMap::default() };
        objects.create(&parameters, &map).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let delays: Vec<_> = (1..=200).map(Duration::from_millis).collect();
        let started = Started { delays, whole: Duration::from_secs(2) };
        assert_eq!(started.percentile(50), Duration::from_millis(100));
        assert_eq!(started.percentile(99), Duration::from_millis(198));
        assert!((started.per_second() - 100.0).abs() < f64::EPSILON);
    }
}
