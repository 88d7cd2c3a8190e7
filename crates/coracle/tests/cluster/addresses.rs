//! Addresses of pods: their own where this machine lets a node make a network, the node's elsewhere.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use coracle_testing::{Cluster, NodeOptions};
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::scene::{Scene, options};
use crate::{guests, manifests, states, until};

const PORT: u16 = 7000;

/// Whether a node started here can make a network: the tests of one have nothing to look at elsewhere.
pub(crate) fn may_make_networks() -> bool {
    let may = rustix::process::geteuid().is_root();
    if !may {
        println!("not root: pods cannot have addresses of their own here");
    }
    may
}

/// The program that speaks with others over the network, as its arguments say, for ever.
pub(crate) async fn net(arguments: &[&str]) -> Value {
    let image = guests::image("net-rust-p2").await.unwrap();
    manifests::app("Always", &image, arguments)
}

/// A pod that sends back what it gets.
async fn echo(scene: &Scene<'_>, name: &str) -> Pod {
    let spec = net(&["echo", &format!("0.0.0.0:{PORT}")]).await;
    scene.run_until(name, spec, states::is_running).await.unwrap()
}

fn address(pod: &Pod) -> IpAddr {
    let status = pod.status.as_ref().unwrap();
    let all: Vec<_> = status.pod_ips.iter().flatten().map(|address| address.ip.as_str()).collect();
    assert_eq!(all, [status.pod_ip.as_deref().unwrap()]);
    all[0].parse().unwrap()
}

async fn range(scene: &Scene<'_>) -> Ipv4Net {
    scene.node_object().await.unwrap().spec.unwrap().pod_cidr.unwrap().parse().unwrap()
}

/// Waits until something listens there, and asks it.
async fn ask(address: IpAddr, port: u16) -> String {
    let address = SocketAddr::new(address, port);
    let connect = || TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok();
    let mut stream = until::found("the pod listens", connect).await.unwrap();
    stream.write_all(b"hello").unwrap();
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).unwrap();
    String::from_utf8(answer.to_vec()).unwrap()
}

/// The address from which this machine speaks with a pod.
fn own_address(pod: IpAddr) -> IpAddr {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    socket.connect((pod, PORT)).unwrap();
    socket.local_addr().unwrap().ip()
}

/// The interface over which a range is reached.
fn link_to(range: Ipv4Net) -> Option<String> {
    let destination = format!("{:08X}", u32::from_le_bytes(range.network().octets()));
    let routes = fs::read_to_string("/proc/net/route").unwrap();
    let mut routes = routes.lines().map(|line| line.split('\t').collect::<Vec<_>>());
    routes.find(|fields| fields[1] == destination).map(|fields| fields[0].to_owned())
}

#[tokio::test]
async fn pods_listen_on_one_port_each_at_its_own_address() {
    if !may_make_networks() {
        return;
    }
    let scene = Scene::new("own-addresses").await.unwrap();
    let range = range(&scene).await;
    let mut addresses = Vec::new();
    for name in ["one", "other"] {
        let address = address(&echo(&scene, name).await);
        assert!(matches!(address, IpAddr::V4(address) if range.contains(&address)), "{address} in {range}");
        assert_eq!(ask(address, PORT).await, "hello");
        addresses.push(address);
    }
    assert_ne!(addresses[0], addresses[1]);

    let answer = net(&["answer", &format!("0.0.0.0:{PORT}")]).await;
    let pod = scene.run_until("web", answer, states::is_running).await.unwrap();
    let there = SocketAddr::new(address(&pod), PORT);
    until::so("it listens", || TcpStream::connect(there).is_ok()).await.unwrap();
    let path = format!("/api/v1/namespaces/{}/pods/http:web:{PORT}/proxy/", scene.namespace);
    let output = scene.kubectl(&["get", "--raw", &path]).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "hello\n");
}

#[tokio::test]
async fn connections_leave_from_the_pods_address_and_reach_no_loopback_but_its_own() {
    if !may_make_networks() {
        return;
    }
    let scene = Scene::new("outgoing").await.unwrap();
    let host = own_address(address(&echo(&scene, "first").await));
    let listener = TcpListener::bind((host, 0)).unwrap();
    let server = listener.local_addr().unwrap().to_string();
    let pod = scene.run("asks", net(&["ask", &server, "hi"]).await).await.unwrap().name_any();
    let (mut stream, peer) = tokio::task::spawn_blocking(move || listener.accept().unwrap()).await.unwrap();
    stream.write_all(b"hi").unwrap();
    let pod = scene.pod(&pod, |pod| pod.status.as_ref().is_some_and(|it| it.pod_ip.is_some())).await.unwrap();
    assert_eq!(peer.ip(), address(&pod));

    let local = TcpListener::bind("127.0.0.1:0").unwrap();
    local.set_nonblocking(true).unwrap();
    let server = local.local_addr().unwrap().to_string();
    let image = guests::image("net-rust-p2").await.unwrap();
    let once = manifests::once(&image, &["ask", &server, "hi"]);
    scene.run_until("refused", once, states::has_ended).await.unwrap();
    assert!(scene.logs("refused", &[]).await.unwrap().starts_with("failed ConnectionRefused"));
    assert_eq!(local.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);

    let mut host = manifests::once(&image, &["bind", &server]);
    host["hostNetwork"] = json!(true);
    let host = scene.run_until("host", host, states::has_ended).await.unwrap();
    assert_eq!(host.status.as_ref().unwrap().pod_ip, host.status.as_ref().unwrap().host_ip);
    assert!(scene.logs("host", &[]).await.unwrap().starts_with("failed AddrInUse"));
}

#[tokio::test]
async fn a_killed_nodes_network_is_found_and_mended_and_an_ended_ones_is_gone() {
    if !may_make_networks() {
        return;
    }
    let mut scene = Scene::new("networks").await.unwrap();
    let range = range(&scene).await;
    let before = address(&echo(&scene, "kept").await);
    let link = link_to(range).unwrap();
    scene.node.restart().await.unwrap();
    let again = scene.pod("kept", |pod| states::restarts(pod) == 1 && states::is_running(pod)).await.unwrap();
    assert_eq!(address(&again), before);
    assert_eq!(ask(before, PORT).await, "hello");
    assert_eq!(link_to(range), Some(link.clone()));

    scene.node.terminate().await.unwrap();
    let is_left = || link_to(range).is_some() || fs::exists(format!("/sys/class/net/{link}")).unwrap();
    until::so("the node has left nothing in the kernel", || !is_left()).await.unwrap();
}

#[tokio::test]
async fn nodes_of_two_clusters_live_on_one_machine() {
    if !may_make_networks() {
        return;
    }
    let other = Cluster::start().await.unwrap();
    let scenes = [
        Scene::new("twin").await.unwrap(),
        Scene::with(&other, options("twin").await.unwrap()).await.unwrap(),
    ];
    for scene in &scenes {
        let address = address(&echo(scene, "server").await);
        assert_eq!(ask(address, PORT).await, "hello");
    }
}

#[tokio::test]
async fn where_pods_have_the_nodes_address_the_node_says_so_and_a_port_is_one_pods() {
    let options = options("shared-address").await.unwrap();
    let arguments = vec!["--pod-network=node".to_owned()];
    let options = NodeOptions { arguments, ..options };
    let scene = Scene::with(Cluster::shared().await.unwrap(), options).await.unwrap();
    let conditions = scene.node_object().await.unwrap().status.unwrap().conditions.unwrap();
    let ready = conditions.into_iter().find(|condition| condition.type_ == "Ready").unwrap().message.unwrap();
    assert!(ready.contains("pods have the node's address"), "{ready}");

    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut spec = net(&["echo", &format!("0.0.0.0:{port}")]).await;
    spec["containers"][0]["ports"] = json!([{"containerPort": port}]);
    let pod = scene.run_until("first", spec.clone(), states::is_running).await.unwrap();
    assert_eq!(address(&pod), IpAddr::from([127, 0, 0, 1]));
    assert_eq!(ask(address(&pod), port).await, "hello");
    let refused = scene.run_until("second", spec, states::has_ended).await.unwrap();
    assert_eq!(refused.status.unwrap().reason.as_deref(), Some("NodePorts"));

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let module = guests::image("net-rust").await.unwrap();
    let container = json!({"image": module, "args": ["echo", ""], "ports": [{"containerPort": port}]});
    let is_waiting = |pod: &Pod| states::waiting_reason(pod) == "RunContainerError";
    scene.run_until("module", manifests::of("Always", &container), is_waiting).await.unwrap();
    scene
        .event("module", "Failed", &format!("cannot listen on address 127.0.0.1, port {port}"))
        .await
        .unwrap();
    drop(taken);
    let pod = scene.pod("module", states::is_running).await.unwrap();
    assert_eq!(ask(address(&pod), port).await, "hello");
}
