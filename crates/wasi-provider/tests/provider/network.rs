//! Sockets of guests, in the network of this machine: pods that share its address, each here another one of 127.0.0.0/8.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use coracle_lifecycle::{Cause, ContainerSpec, LocalImage, Network};
use coracle_testing::conformance::{Bench, exit_of};
use coracle_testing::target_dir;

use crate::{client, machine};

/// The program `crates/guests/rust/net` as a component, as `cargo xtask guests` built it.
fn net(folder: &std::path::Path) -> LocalImage {
    let path = target_dir().join("guests/net-rust-p2.wasm");
    machine::image(folder, "net", &std::fs::read(&path).expect("`cargo xtask guests` has been run"))
}

fn own_address() -> IpAddr {
    Bench::address().into()
}

/// A container of a pod with this address.
fn at(address: IpAddr, mut spec: ContainerSpec) -> ContainerSpec {
    spec.network = Network { addresses: vec![address], shared: true, ..Network::default() };
    spec
}

fn log(spec: &ContainerSpec) -> String {
    std::fs::read_to_string(&spec.log.path).unwrap_or_default()
}

/// Waits until the container says that it listens.
async fn listening(spec: &ContainerSpec) {
    let began = Instant::now();
    while !log(spec).contains("listening") {
        assert!(began.elapsed() < Duration::from_mins(1), "it does not listen: {}", log(spec));
        tokio::task::yield_now().await;
    }
}

fn ask(address: SocketAddr, text: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    let mut answer = vec![0; text.len()];
    stream.read_exact(&mut answer).unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn two_pods_listen_on_one_port_each_on_its_own_address() {
    let folder = tempfile::tempdir().unwrap();
    let provider = machine::provider(folder.path());
    let (bench, net) = (Bench::new(&provider, folder.path()), net(folder.path()));
    let mut servers = Vec::new();
    for address in [own_address(), own_address()] {
        let spec = at(address, bench.spec(&net, &["echo", "0.0.0.0:7007"]));
        let container = bench.start(spec.clone()).await;
        listening(&spec).await;
        servers.push((address, container));
    }
    for (address, container) in servers {
        let address = SocketAddr::new(address, 7007);
        assert_eq!(tokio::task::spawn_blocking(move || ask(address, "hello")).await.unwrap(), "hello");
        TcpStream::connect(address).unwrap().write_all(b"quit").unwrap();
        assert_eq!(exit_of(&*container).await.cause, Cause::Exited(0));
    }
}

#[tokio::test]
async fn connections_leave_from_the_pods_address() {
    let folder = tempfile::tempdir().unwrap();
    let provider = machine::provider(folder.path());
    let (bench, net) = (Bench::new(&provider, folder.path()), net(folder.path()));
    let node = own_address();
    let spec = at(node, bench.spec(&net, &["echo", "0.0.0.0:7008"]));
    let _container = bench.start(spec.clone()).await;
    listening(&spec).await;
    let (exit, text) = bench.run(at(node, bench.spec(&net, &["ask", &format!("{node}:7008"), "hi"]))).await;
    assert_eq!((exit.cause, text), (Cause::Exited(0), format!("hi from {node}:7008 by {node}\n")));
}

#[tokio::test]
async fn datagrams_go_both_ways() {
    let folder = tempfile::tempdir().unwrap();
    let provider = machine::provider(folder.path());
    let (bench, net) = (Bench::new(&provider, folder.path()), net(folder.path()));
    let node = own_address();
    let spec = at(node, bench.spec(&net, &["udp-echo", "0.0.0.0:7009"]));
    let container = bench.start(spec.clone()).await;
    listening(&spec).await;
    let to = format!("{node}:7009");
    let (exit, text) = bench.run(at(node, bench.spec(&net, &["udp-ask", &to, "hi"]))).await;
    assert_eq!((exit.cause, text), (Cause::Exited(0), format!("hi from {to} by {node}\n")));

    let mut local = at(node, bench.spec(&net, &["udp-echo", "127.0.0.1:7014"]));
    let _local = bench.start(local.clone()).await;
    listening(&local).await;
    let pod = local.pod;
    local = at(node, bench.spec(&net, &["udp-ask", "127.0.0.1:7014", "hi"]));
    local.pod = pod;
    assert_eq!(bench.run(local).await.1, format!("hi from 127.0.0.1:7014 by {node}\n"));

    let outside = UdpSocket::bind("127.0.0.1:0").unwrap();
    outside.send_to(b"quit", (node, 7009)).unwrap();
    assert_eq!(exit_of(&*container).await.cause, Cause::Exited(0));
}

#[tokio::test]
async fn a_pods_loopback_is_its_own_and_the_machines_out_of_reach() {
    let folder = tempfile::tempdir().unwrap();
    let provider = machine::provider(folder.path());
    let (bench, net) = (Bench::new(&provider, folder.path()), net(folder.path()));
    let (one, other) = (own_address(), own_address());
    let host = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = format!("127.0.0.1:{}", host.local_addr().unwrap().port());
    let (exit, text) = bench.run(at(one, bench.spec(&net, &["ask", &host, "hi"]))).await;
    assert_eq!((exit.cause, text.contains("ConnectionRefused")), (Cause::Exited(1), true), "{text}");

    let mut spec = at(one, bench.spec(&net, &["echo", "127.0.0.1:7010"]));
    let pod = spec.pod.clone();
    let container = bench.start(spec.clone()).await;
    listening(&spec).await;
    assert!(TcpStream::connect((one, 7010)).is_err() && TcpStream::connect("127.0.0.1:7010").is_err());
    let (exit, text) = bench.run(at(other, bench.spec(&net, &["ask", "127.0.0.1:7010", "hi"]))).await;
    assert_eq!(exit.cause, Cause::Exited(1), "{text}");
    spec = at(one, bench.spec(&net, &["ask", "127.0.0.1:7010", "hi"]));
    spec.pod = pod;
    let (_, text) = bench.run(spec).await;
    assert_eq!(text, "hi from 127.0.0.1:7010 by 127.0.0.1\n");
    container.stop(Duration::ZERO);
}

#[tokio::test]
async fn what_listens_everywhere_is_found_by_the_loopback_too() {
    let folder = tempfile::tempdir().unwrap();
    let provider = machine::provider(folder.path());
    let (bench, net) = (Bench::new(&provider, folder.path()), net(folder.path()));
    let pod = own_address();
    let spec = at(pod, bench.spec(&net, &["echo", "0.0.0.0:7011"]));
    let _container = bench.start(spec.clone()).await;
    listening(&spec).await;
    let mut client = at(pod, bench.spec(&net, &["ask", "127.0.0.1:7011", "hi"]));
    client.pod = spec.pod;
    let (_, text) = bench.run(client).await;
    assert_eq!(text, format!("hi from {pod}:7011 by {pod}\n"));
}

#[tokio::test]
async fn an_address_of_others_and_a_taken_port_are_refused_with_their_own_errors() {
    let folder = tempfile::tempdir().unwrap();
    let provider = machine::provider(folder.path());
    let (bench, net) = (Bench::new(&provider, folder.path()), net(folder.path()));
    let pod = own_address();
    let taken = TcpListener::bind((pod, 7012)).unwrap();
    for (wanted, error) in [
        ("0.0.0.0:7012", "AddrInUse"),
        ("192.0.2.1:80", "AddrNotAvailable"),
        ("127.0.0.1:7012", "bound 127.0.0.1:7012"),
        ("0.0.0.0:7013", &format!("bound {pod}:7013")),
    ] {
        let (_, text) = bench.run(at(pod, bench.spec(&net, &["bind", wanted]))).await;
        assert!(text.contains(error), "{wanted}: {text}");
    }
    drop(taken);
}

#[tokio::test]
async fn in_the_nodes_network_a_guest_has_the_nodes_loopback() {
    let folder = tempfile::tempdir().unwrap();
    let provider = machine::provider(folder.path());
    let (bench, net) = (Bench::new(&provider, folder.path()), net(folder.path()));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap().to_string();
    let server = std::thread::spawn(move || {
        let (mut stream, peer) = listener.accept().unwrap();
        let mut buffer = [0; 2];
        stream.read_exact(&mut buffer).unwrap();
        stream.write_all(&buffer).unwrap();
        peer.ip()
    });
    let mut spec = bench.spec(&net, &["ask", &to, "hi"]);
    spec.network = Network { host: true, addresses: vec![own_address()], ..Network::default() };
    assert_eq!(bench.run(spec).await.1, format!("hi from {to} by 127.0.0.1\n"));
    assert_eq!(server.join().unwrap(), IpAddr::from([127, 0, 0, 1]));
}

#[tokio::test]
async fn names_are_looked_up_in_the_containers_own_hosts_file() {
    let folder = tempfile::tempdir().unwrap();
    let provider = machine::provider(folder.path());
    let (bench, net) = (Bench::new(&provider, folder.path()), net(folder.path()));
    let run = async |name: &str| {
        let spec = at(own_address(), bench.spec(&net, &["resolve", name]));
        std::fs::create_dir(spec.root.join("etc")).unwrap();
        std::fs::write(spec.root.join("etc/hosts"), "10.1.2.3 db.example\n").unwrap();
        bench.run(spec).await.1
    };
    assert_eq!(run("db.example").await, "10.1.2.3\n");
    assert_eq!(run("192.0.2.1").await, "192.0.2.1\n");
    assert!(run("nobody.example").await.starts_with("failed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_of_wasi_0_3_are_the_pods_too() {
    let folder = tempfile::tempdir().unwrap();
    let provider = machine::provider(folder.path());
    let bench = Bench::new(&provider, folder.path());
    let mut spec = client::spec(&bench, &machine::built(folder.path(), "http-concurrent-rust"), &[]);
    spec.network.shared = true;
    let served = client::start(&bench, spec).await;
    let pod = served.address.ip();

    let tcp = TcpListener::bind((pod, 0)).unwrap();
    let asked = format!("/tcp?{}", tcp.local_addr().unwrap());
    let answering = tokio::task::spawn_blocking(move || {
        let (mut stream, from) = tcp.accept().unwrap();
        let mut word = [0; 2];
        stream.read_exact(&mut word).unwrap();
        stream.write_all(&word).unwrap();
        from
    });
    let answer = served.get(&asked).await.body;
    assert!(answer.starts_with("hi by"), "{answer} {}", log(&served.spec));
    let from = answering.await.unwrap();
    assert_eq!((from.ip(), answer), (pod, format!("hi by {from}\n")));

    let udp = UdpSocket::bind((pod, 0)).unwrap();
    let there = udp.local_addr().unwrap();
    let answering = tokio::task::spawn_blocking(move || {
        let mut word = [0; 2];
        let (_, from) = udp.recv_from(&mut word).unwrap();
        udp.send_to(&word, from).unwrap();
        from
    });
    let answer = served.text(&format!("/udp?{there}")).await;
    let from = answering.await.unwrap();
    assert_eq!((from.ip(), answer), (pod, format!("hi from {there} by {from}\n")));

    let there = SocketAddr::new(pod, 7015);
    assert_eq!(served.text("/listen?0.0.0.0:7015").await, format!("{there}\n"));
    assert_eq!(tokio::task::spawn_blocking(move || ask(there, "hello")).await.unwrap(), "hello");
    assert_eq!(served.text("/listen?192.0.2.1:7015").await, "ErrorCode::AddressNotBindable\n");
    assert_eq!(served.text("/resolve?localhost").await, "127.0.0.1\n(0, 0, 0, 0, 0, 0, 0, 1)\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_of_wasi_0_3_serve_and_ask_others() {
    let folder = tempfile::tempdir().unwrap();
    let provider = machine::provider(folder.path());
    let bench = Bench::new(&provider, folder.path());
    let image = machine::built(folder.path(), "command-concurrent-rust");
    let pod = own_address();
    let run = async |arguments: &[&str]| bench.run(at(pod, bench.spec(&image, arguments))).await.1;

    let tcp = TcpListener::bind((pod, 0)).unwrap();
    let there = tcp.local_addr().unwrap().to_string();
    let answering = tokio::task::spawn_blocking(move || {
        let (mut stream, from) = tcp.accept().unwrap();
        let mut word = [0; 2];
        stream.read_exact(&mut word).unwrap();
        stream.write_all(&word).unwrap();
        from
    });
    let said = run(&["ask", &there]).await;
    let from = answering.await.unwrap();
    assert_eq!((from.ip(), said), (pod, format!("hi by {from}\n")));

    let server = at(pod, bench.spec(&image, &["udp-echo", "0.0.0.0:7016"]));
    let container = bench.start(server.clone()).await;
    listening(&server).await;
    let there = format!("{pod}:7016");
    let said = run(&["udp-ask", &there]).await;
    assert!(said.starts_with(&format!("hi from {there} by {pod}:")), "{said}");
    container.stop(Duration::ZERO);

    let machines = TcpListener::bind("127.0.0.1:0").unwrap();
    let machines = machines.local_addr().unwrap().to_string();
    assert_eq!(run(&["ask", &machines]).await, "failed ErrorCode::ConnectionRefused\n");
    let taken = TcpListener::bind((pod, 7017)).unwrap();
    assert_eq!(run(&["bind", "0.0.0.0:7017"]).await, "failed ErrorCode::AddressInUse\n");
    assert_eq!(run(&["bind", "192.0.2.1:7017"]).await, "failed ErrorCode::AddressNotBindable\n");
    drop(taken);
    assert_eq!(run(&["bind", "0.0.0.0:7017"]).await, format!("bound {pod}:7017\n"));

    let named = at(pod, bench.spec(&image, &["resolve", "db.example"]));
    std::fs::create_dir(named.root.join("etc")).unwrap();
    std::fs::write(named.root.join("etc/hosts"), "10.1.2.3 db.example\n").unwrap();
    assert_eq!(bench.run(named).await.1, "10.1.2.3\n");
    assert_eq!(run(&["resolve", "nobody.example"]).await, "ErrorCode::PermanentResolverFailure\n");
}
