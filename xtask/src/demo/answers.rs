//! Asking the demos' HTTP services.

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use coracle_testing::http;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client};

/// What the port of an HTTP service is called.
const PORT: &str = "http";

/// Prints what each pod with such a port answers; every answer must be a good one.
pub(super) async fn show(client: &Client) -> anyhow::Result<()> {
    for pod in Api::<Pod>::default_namespaced(client.clone()).list(&ListParams::default()).await? {
        let Some(address) = address(&pod) else { continue };
        println!("\n$ curl http://{address}/");
        let answer = http::get(address, "/").await.with_context(|| format!("asking {address}"))?;
        print!("{}", answer.body);
        ensure!(answer.status == 200 && answer.is_whole, "{address} answers {}", answer.head);
    }
    Ok(())
}

fn address(pod: &Pod) -> Option<SocketAddr> {
    let ports = pod.spec.iter().flat_map(|spec| &spec.containers).flat_map(|one| one.ports.iter().flatten());
    let port = ports.into_iter().find(|port| port.name.as_deref() == Some(PORT))?.container_port;
    let address = pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()?;
    Some(SocketAddr::new(address, u16::try_from(port).ok()?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_service_is_asked_where_its_pod_is() {
        let at = |ports: serde_json::Value| {
            let spec = json!({"containers": [{"name": "a"}, {"name": "b", "ports": ports}]});
            let pod = json!({"spec": spec, "status": {"podIP": "192.0.2.7"}});
            address(&serde_json::from_value(pod).unwrap()).map(|address| address.to_string())
        };
        let http = json!({"name": "http", "containerPort": 81});
        assert_eq!(at(json!([{"containerPort": 80}, http])).as_deref(), Some("192.0.2.7:81"));
        assert_eq!(at(json!([{"name": "other", "containerPort": 80}])), None);
    }
}
