//! Pods with servers of every kind: on their ports, in one pod, and rolled under load.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use coracle_testing::{http, ports, wait};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::scene::{LIMIT, Scene};
use crate::{guests, states, until};

/// A container that listens on a port.
async fn server(guest: &str, port: u16) -> Value {
    let image = guests::image(guest).await.unwrap();
    let arguments = if guest.starts_with("net-") || guest.starts_with("command-") {
        json!(["echo", format!("0.0.0.0:{port}")])
    } else {
        json!([])
    };
    json!({"name": guest, "image": image, "args": arguments, "ports": [{"containerPort": port}]})
}

fn address(pod: &Pod) -> Option<IpAddr> {
    pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()
}

/// Sends a word and reads it back.
fn exchange(mut stream: &TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(b"hello")?;
    let mut answer = [0; 5];
    stream.read_exact(&mut answer)
}

fn echoes(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok_and(|stream| exchange(&stream).is_ok())
}

#[tokio::test]
async fn containers_of_every_kind_share_a_pod_and_events_say_what_they_are() {
    let scene = Scene::new("mixed").await.unwrap();
    let kinds = [
        ("net-rust", "wasip1 module"),
        ("tcp-echo-go", "wasip1 module"),
        ("net-rust-p2", "wasi:cli/command@0.2 component"),
        ("http-test-rust", "wasi:http/proxy@0.2 component"),
        ("http-concurrent-rust", "wasi:http/service@0.3 component"),
    ];
    let mut containers = Vec::new();
    for (guest, _) in kinds {
        containers.push((guest, ports::free().unwrap()));
    }
    let mut spec = json!({"restartPolicy": "Always", "containers": []});
    for (guest, port) in &containers {
        spec["containers"].as_array_mut().unwrap().push(server(guest, *port).await);
    }
    let pod = scene.run_until("mixed", spec, states::is_running).await.unwrap();
    let pod = address(&pod).unwrap();
    for (guest, port) in containers {
        let there = SocketAddr::new(pod, port);
        if guest.starts_with("http") {
            assert_eq!(http::get(there, "/hello").await.unwrap().body, "hello\n", "{guest}");
        } else {
            until::so(guest, || echoes(there)).await.unwrap();
        }
    }
    for (_, kind) in kinds {
        scene.event("mixed", "Created", &format!("Container created: {kind}")).await.unwrap();
    }
    let described = scene.kubectl(&["describe", "pod", "mixed"]).await.unwrap();
    let described = String::from_utf8_lossy(&described.stdout).into_owned();
    assert!(described.contains("wasi:http/proxy@0.2 component"), "{described}");
}

#[tokio::test]
async fn a_host_port_leads_to_its_pod_and_is_one_pods() {
    let scene = Scene::new("host-ports").await.unwrap();
    let (inner, outer, other) = (ports::free().unwrap(), ports::free().unwrap(), ports::free().unwrap());
    let mut echo = server("net-rust", inner).await;
    echo["ports"][0]["hostPort"] = outer.into();
    let mut web = server("http-test-rust", ports::free().unwrap()).await;
    web["ports"][0]["hostPort"] = other.into();
    let spec = |containers: Value| json!({"restartPolicy": "Always", "containers": containers});
    scene.run_until("first", spec(json!([echo, web])), states::is_running).await.unwrap();
    until::so("the host's port leads to the pod", || echoes(([127, 0, 0, 1], outer).into())).await.unwrap();
    let answer = http::get(([127, 0, 0, 1], other).into(), "/hello").await.unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (200, "hello\n"));

    // The scheduler would not send it here: it comes as a static pod's or a race's would.
    let mut second = spec(json!([echo]));
    second["nodeName"] = scene.node.name().into();
    let refused = scene.run_until("second", second, states::has_ended).await.unwrap();
    assert_eq!(refused.status.unwrap().reason.as_deref(), Some("NodePorts"));
    scene.delete("first", None).await.unwrap();
    scene.gone("first").await.unwrap();
    let gone = || TcpStream::connect(("127.0.0.1", outer)).is_err();
    until::so("the host's port is closed", gone).await.unwrap();
}

#[tokio::test]
async fn a_host_port_is_of_one_address_and_one_protocol() {
    let scene = Scene::new("host-addresses").await.unwrap();
    let outer = ports::free().unwrap();
    let mut specs = Vec::new();
    for (guest, protocol, address) in [
        ("net-rust", "TCP", json!("127.0.0.1")),
        ("net-rust", "TCP", json!("127.0.0.2")),
        ("net-rust-p2", "UDP", json!("127.0.0.1")),
        ("net-rust", "TCP", json!(null)),
    ] {
        let inner = ports::free().unwrap();
        let mut container = server(guest, inner).await;
        let opened =
            json!({"containerPort": inner, "hostPort": outer, "hostIP": address, "protocol": protocol});
        container["ports"] = json!([opened]);
        if protocol == "UDP" {
            container["args"][0] = "udp-echo".into();
        }
        specs.push(
            json!({"restartPolicy": "Always", "containers": [container], "nodeName": scene.node.name()}),
        );
    }
    let everywhere = specs.pop().unwrap();
    for (number, spec) in specs.into_iter().enumerate() {
        scene.run_until(&format!("pod-{number}"), spec, states::is_running).await.unwrap();
    }
    let refused = scene.run_until("everywhere", everywhere, states::has_ended).await.unwrap();
    assert_eq!(refused.status.unwrap().reason.as_deref(), Some("NodePorts"));
    for address in [[127, 0, 0, 1], [127, 0, 0, 2]] {
        until::so("the host's port leads to its pod", || echoes((address, outer).into())).await.unwrap();
    }
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let answered = || {
        let mut answer = [0; 5];
        client.send_to(b"hello", ("127.0.0.1", outer)).is_ok()
            && client.recv(&mut answer).is_ok()
            && &answer == b"hello"
    };
    until::so("datagrams are led to their pod", answered).await.unwrap();
}

#[tokio::test]
async fn a_port_of_the_host_that_another_program_has_is_named_and_tried_again() {
    let scene = Scene::new("host-port-taken").await.unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let outer = taken.local_addr().unwrap();
    let mut container = server("net-rust", ports::free().unwrap()).await;
    container["ports"][0]["hostPort"] = outer.port().into();
    container["ports"][0]["hostIP"] = "127.0.0.1".into();
    let is_waiting = |pod: &Pod| states::waiting_reason(pod) == "RunContainerError";
    let spec = json!({"restartPolicy": "Always", "containers": [container]});
    scene.run_until("waits", spec, is_waiting).await.unwrap();
    let words = format!("cannot open the node's port {outer} (hostPort)");
    scene.event("waits", "Failed", &words).await.unwrap();
    drop(taken);
    scene.pod("waits", states::is_running).await.unwrap();
    until::so("the host's port leads to the pod", || echoes(outer)).await.unwrap();
}

#[tokio::test]
async fn a_port_that_another_container_of_the_pod_has_is_named_and_hurts_nobody() {
    let scene = Scene::new("one-port").await.unwrap();
    let port = ports::free().unwrap();
    for (number, (one, two)) in
        [("net-rust", "http-test-rust"), ("net-rust-p2", "net-rust"), ("net-rust", "http-concurrent-rust")]
            .into_iter()
            .enumerate()
    {
        let (mut first, second) = (server(one, port).await, server(two, port).await);
        let name = format!("pod-{number}");
        // A sidecar: it is there before the other comes.
        first["startupProbe"] =
            json!({"tcpSocket": {"port": port}, "periodSeconds": 1, "failureThreshold": 60});
        first["restartPolicy"] = "Always".into();
        let spec = json!({"restartPolicy": "Always", "initContainers": [first], "containers": [second]});
        let is_waiting = |pod: &Pod| states::waiting_reason(pod) == "RunContainerError";
        let pod = scene.run_until(&name, spec, is_waiting).await.unwrap();
        let there = SocketAddr::new(address(&pod).unwrap(), port);
        let words = format!("cannot listen on address {}, port {port}", there.ip());
        scene.event(&name, "Failed", &words).await.unwrap();
        assert!(echoes(there), "{one} goes on");
        scene.delete(&name, Some(0)).await.unwrap();
    }
}

/// Clients that come and go, each to a pod that is said to be ready.
struct Load {
    clients: JoinSet<()>,
    stop: Arc<AtomicBool>,
    served: Arc<AtomicU32>,
    dropped: Arc<AtomicU32>,
}

impl Load {
    fn start(scene: &Scene<'_>, port: u16, is_http: bool) -> Self {
        let (stop, served, dropped) = (Arc::default(), Arc::default(), Arc::default());
        let mut load = Self { clients: JoinSet::new(), stop, served, dropped };
        for _ in 0..4 {
            let pods = scene.api::<Pod>();
            let (stop, served) = (Arc::clone(&load.stop), Arc::clone(&load.served));
            let dropped = Arc::clone(&load.dropped);
            load.clients.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    for pod in ready(&pods).await {
                        match visit(SocketAddr::new(pod, port), is_http).await {
                            Some(true) => served.fetch_add(1, Ordering::Relaxed),
                            Some(false) => dropped.fetch_add(1, Ordering::Relaxed),
                            None => 0,
                        };
                    }
                }
            });
        }
        load
    }

    /// How many were served; all who were let in.
    async fn end(mut self) -> u32 {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.clients.join_next().await {
            ended.unwrap();
        }
        assert_eq!(self.dropped.load(Ordering::Relaxed), 0, "connections were accepted and dropped");
        self.served.load(Ordering::Relaxed)
    }
}

async fn ready(pods: &Api<Pod>) -> Vec<IpAddr> {
    let listed = pods.list(&ListParams::default().labels("app=web")).await.unwrap().items;
    listed.iter().filter(|pod| states::is_running(pod)).filter_map(address).collect()
}

/// Whether a client was served; `None` when it was not let in.
async fn visit(address: SocketAddr, is_http: bool) -> Option<bool> {
    let connecting = move || TcpStream::connect_timeout(&address, Duration::from_millis(500)).ok();
    let visit = move || {
        let stream = connecting()?;
        Some(exchange(&stream).and_then(|()| exchange(&stream)).is_ok())
    };
    if !is_http {
        return tokio::task::spawn_blocking(visit).await.unwrap();
    }
    let connecting = timeout(Duration::from_millis(500), tokio::net::TcpStream::connect(address));
    let mut stream = connecting.await.ok()?.ok()?;
    let asked = stream.write_all(b"GET /sleep?20 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    let answer = http::answer(&mut stream).await;
    Some(asked.is_ok() && answer.status == 200 && answer.body == "slept\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn deployments_roll_under_load_without_a_dropped_connection() {
    let guests =
        ["net-rust", "net-rust-p2", "command-concurrent-rust", "http-test-rust", "http-concurrent-rust"];
    for guest in guests {
        let scene = Scene::new(&format!("rolls-{guest}")).await.unwrap();
        if !has_own_addresses(&scene).await {
            return;
        }
        let (port, image) = (8080, guests::image(guest).await.unwrap());
        let container = server(guest, port).await;
        let spec = json!({"terminationGracePeriodSeconds": 30, "containers": [container]});
        let manifest = json!({"metadata": {"name": "web"}, "spec": {
            "replicas": 3,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": scene.placed(spec)},
        }});
        scene.create::<Deployment>(manifest).await.unwrap();
        rolled_out(&scene).await;
        let load = Load::start(&scene, port, guest.starts_with("http"));
        for turn in ["one", "two"] {
            let annotated = json!({"spec": {"template": {"metadata": {"annotations": {"turn": turn}}}}});
            let patch = Patch::Strategic(annotated);
            scene.api::<Deployment>().patch("web", &PatchParams::default(), &patch).await.unwrap();
            rolled_out(&scene).await;
        }
        let served = load.end().await;
        assert!(served > 20, "{image}: only {served} were served");
    }
}

/// Elsewhere three pods cannot have one port.
async fn has_own_addresses(scene: &Scene<'_>) -> bool {
    let conditions = scene.node_object().await.unwrap().status.unwrap().conditions.unwrap();
    let mut ready = conditions.into_iter().filter(|condition| condition.type_ == "Ready");
    !ready.any(|ready| ready.message.is_some_and(|message| message.contains("the node's address")))
}

async fn rolled_out(scene: &Scene<'_>) {
    let done = |deployment: &Deployment| {
        let status = deployment.status.clone().unwrap_or_default();
        let counts = [status.replicas, status.updated_replicas, status.available_replicas];
        status.observed_generation == deployment.metadata.generation
            && counts.iter().all(|count| *count == Some(3))
    };
    wait::object(scene.api::<Deployment>(), "web", LIMIT, done).await.unwrap();
}
