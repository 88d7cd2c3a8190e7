//! A node with an address range of each family, and the cluster's name server in one of its pods.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use coracle_testing::{Cluster, NodeOptions, http};
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};

use crate::addresses::{may_make_networks, net};
use crate::scene::{Scene, options};
use crate::{guests, manifests, states, until};

const PORT: u16 = 7000;

/// A node that has a range of each family before it joins, that of IPv4 first. The last 8 bits of both are the pod's.
async fn scene(name: &str, subnet: u8, arguments: impl FnOnce(Ipv4Addr) -> Vec<String>) -> Scene<'static> {
    ordered(name, subnet, false, arguments).await
}

/// The same, perhaps with the range of IPv6 first.
async fn ordered(
    name: &str,
    subnet: u8,
    is_ipv6_first: bool,
    arguments: impl FnOnce(Ipv4Addr) -> Vec<String>,
) -> Scene<'static> {
    let cluster = Cluster::shared().await.unwrap();
    let whole: Ipv4Net = cluster.pod_addresses().parse().unwrap();
    let [first, second, ..] = whole.network().octets();
    let mut ranges = [format!("{first}.{second}.{subnet}.0/24"), format!("fd63:{second:x}:{subnet:x}::/120")];
    if is_ipv6_first {
        ranges.reverse();
    }
    let node: Node = serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {"podCIDR": ranges[0], "podCIDRs": ranges},
    }))
    .unwrap();
    let api: Api<Node> = Api::all(cluster.admin().await.unwrap());
    api.create(&PostParams::default(), &node).await.unwrap();
    let arguments = arguments(Ipv4Addr::new(first, second, subnet, 1));
    Scene::with(cluster, NodeOptions { arguments, ..options(name).await.unwrap() }).await.unwrap()
}

fn addresses_of(pod: &Pod) -> Vec<IpAddr> {
    let status = pod.status.as_ref().unwrap();
    let all: Vec<&str> = status.pod_ips.iter().flatten().map(|address| address.ip.as_str()).collect();
    assert_eq!(all.first().copied(), status.pod_ip.as_deref());
    all.into_iter().map(|address| address.parse().unwrap()).collect()
}

#[tokio::test]
async fn a_pod_has_an_address_of_each_range_of_its_node() {
    if !may_make_networks() {
        return;
    }
    let scene = scene("two-families", 250, |_| Vec::new()).await;
    let mut spec = net(&["answer", &format!("0.0.0.0:{PORT}")]).await;
    let other = net(&["answer", &format!("[::]:{PORT}")]).await["containers"][0].clone();
    spec["containers"].as_array_mut().unwrap().push(other);
    spec["containers"][1]["name"] = "other".into();
    let pod = scene.run_until("both", spec, states::is_running).await.unwrap();
    let all = addresses_of(&pod);
    assert!(matches!(all[..], [IpAddr::V4(_), IpAddr::V6(_)]), "{all:?}");
    for address in all {
        let there = SocketAddr::new(address, PORT);
        until::so("it listens", || std::net::TcpStream::connect(there).is_ok()).await.unwrap();
        assert_eq!(http::get(there, "/").await.unwrap().body, "hello\n");
        let ask = manifests::once(
            &guests::image("net-rust-p2").await.unwrap(),
            &["ask", &there.to_string(), "\r\n\r\n"],
        );
        let name = if address.is_ipv4() { "asks-v4" } else { "asks-v6" };
        let asked = scene.run_until(name, ask, states::has_ended).await.unwrap();
        let own = addresses_of(&asked).into_iter().find(|own| own.is_ipv4() == address.is_ipv4()).unwrap();
        assert_eq!(scene.logs(name, &[]).await.unwrap(), format!("HTTP from {there} by {own}\n"));
    }
}

#[tokio::test]
async fn the_family_whose_range_is_first_is_the_pods_own_and_servers_answer_in_both() {
    if !may_make_networks() {
        return;
    }
    let scene = ordered("newer-family-first", 249, true, |_| Vec::new()).await;
    let probe = json!({"httpGet": {"path": "/hello", "port": PORT}, "periodSeconds": 1});
    let server = |image: String| {
        let container = json!({"image": image, "args": ["answer", ""], "readinessProbe": probe,
            "ports": [{"containerPort": PORT}]});
        manifests::of("Always", &container)
    };
    for (name, guest) in [("component", "http-test-rust"), ("module", "net-rust")] {
        let spec = server(guests::image(guest).await.unwrap());
        let is_ready = |pod: &Pod| states::status(pod).is_some_and(|status| status.ready);
        let pod = scene.run_until(name, spec, is_ready).await.unwrap();
        let all = addresses_of(&pod);
        assert!(matches!(all[..], [IpAddr::V6(_), IpAddr::V4(_)]), "{name}: {all:?}");
        for address in all {
            let answer = http::get(SocketAddr::new(address, PORT), "/hello").await.unwrap();
            assert_eq!(answer.body, "hello\n", "{name} {address}");
        }
        let path = format!("/api/v1/namespaces/{}/pods/http:{name}:{PORT}/proxy/hello", scene.namespace);
        let output = scene.kubectl(&["get", "--raw", &path]).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "hello\n", "{name}");
    }
}

#[tokio::test]
async fn names_are_asked_of_the_clusters_server_from_the_pods_address() {
    if !may_make_networks() {
        return;
    }
    let scene = scene("asks-names", 251, |first| vec![format!("--cluster-dns={first}")]).await;
    let service = format!("web.{}.svc.cluster.local", scene.namespace);
    let server = net(&["names", "0.0.0.0:53", &service, "192.0.2.7"]).await;
    let server = scene.run_until("names", server, states::is_running).await.unwrap();
    let server = addresses_of(&server)[0].to_string();
    let image = guests::image("net-rust-p2").await.unwrap();
    let resolve = |name: &str| manifests::once(&image, &["resolve", name]);
    let own = |name: &str, policy: &str, config: Value| {
        let mut spec = resolve(name);
        spec["dnsPolicy"] = policy.into();
        spec["dnsConfig"] = config;
        spec
    };
    let search = format!("{}.svc.cluster.local", scene.namespace);
    let elsewhere =
        json!({"nameservers": [server], "searches": [search], "options": [{"name": "ndots", "value": "2"}]});
    let unknown = "failed Uncategorized";
    for (name, spec, line) in [
        ("by-service", resolve("web"), "192.0.2.7\n"),
        ("in-full", resolve(&service), "192.0.2.7\n"),
        ("unknown", resolve("nobody"), unknown),
        ("by-settings", own("web", "None", elsewhere), "192.0.2.7\n"),
        ("unsearched", own("web", "None", json!({"nameservers": [server]})), unknown),
    ] {
        scene.run_until(name, spec, states::has_ended).await.unwrap();
        let said = scene.logs(name, &[]).await.unwrap();
        assert!(said.starts_with(line), "{name}: {said}");
    }
}
