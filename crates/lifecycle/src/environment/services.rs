use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Service, ServicePort};

use super::Variables;

/// The service that every pod learns of, whatever its namespace and its wishes.
const API_SERVER: (&str, &str) = ("default", "kubernetes");

/// The variables by which a pod of `namespace` finds the services of the cluster: those of its own namespace when it
/// wants `links`, and that of the API server always.
///
/// <https://kubernetes.io/docs/tutorials/services/connect-applications-service/#environment-variables>
#[must_use]
pub fn service_variables<'a>(
    services: impl IntoIterator<Item = &'a Service>,
    namespace: &str,
    links: bool,
) -> Variables {
    // A service of the pod's own namespace hides that of the API server.
    let mut named: BTreeMap<&str, &Service> = BTreeMap::new();
    for service in services {
        let own = service.metadata.namespace.as_deref().unwrap_or_default();
        let name = service.metadata.name.as_deref().unwrap_or_default();
        if (own, name) == API_SERVER {
            named.entry(name).or_insert(service);
        } else if links && own == namespace {
            named.insert(name, service);
        }
    }
    let mut variables = Variables::default();
    for (name, service) in named {
        describe(&mut variables, name, service);
    }
    variables
}

fn describe(variables: &mut Variables, name: &str, service: &Service) {
    let Some(spec) = &service.spec else { return };
    let address = spec.cluster_ip.as_deref().unwrap_or_default();
    let ports = spec.ports.as_deref().unwrap_or_default();
    let Some(first) = ports.first().filter(|_| !matches!(address, "" | "None")) else { return };
    let prefix = variable_name(name);
    variables.set(&format!("{prefix}_SERVICE_HOST"), address.to_owned());
    variables.set(&format!("{prefix}_SERVICE_PORT"), first.port.to_string());
    for port in ports {
        if let Some(port_name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            let name = format!("{prefix}_SERVICE_PORT_{}", variable_name(port_name));
            variables.set(&name, port.port.to_string());
        }
    }
    variables.set(&format!("{prefix}_PORT"), url(address, first));
    for port in ports {
        link(variables, &prefix, address, port);
    }
}

/// The variables of one port, in the form of Docker's links.
fn link(variables: &mut Variables, prefix: &str, address: &str, port: &ServicePort) {
    let protocol = protocol(port);
    let prefix = format!("{prefix}_PORT_{}_{}", port.port, protocol.to_uppercase());
    variables.set(&prefix, url(address, port));
    variables.set(&format!("{prefix}_PROTO"), protocol.to_lowercase());
    variables.set(&format!("{prefix}_PORT"), port.port.to_string());
    variables.set(&format!("{prefix}_ADDR"), address.to_owned());
}

fn protocol(port: &ServicePort) -> &str {
    port.protocol.as_deref().filter(|protocol| !protocol.is_empty()).unwrap_or("TCP")
}

fn url(address: &str, port: &ServicePort) -> String {
    let protocol = protocol(port).to_lowercase();
    if address.contains(':') {
        format!("{protocol}://[{address}]:{}", port.port)
    } else {
        format!("{protocol}://{address}:{}", port.port)
    }
}

fn variable_name(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(namespace: &str, name: &str, address: &str, ports: &serde_json::Value) -> Service {
        let metadata = json!({ "namespace": namespace, "name": name });
        serde_json::from_value(
            json!({ "metadata": metadata, "spec": { "clusterIP": address, "ports": ports } }),
        )
        .unwrap()
    }

    fn services() -> [Service; 6] {
        let port = json!([{ "port": 1 }]);
        [
            service(
                "default",
                "kubernetes",
                "10.0.0.1",
                &json!([{ "name": "https", "port": 443, "protocol": "TCP" }]),
            ),
            service("a", "my-db", "fd00::5", &json!([{ "port": 53, "protocol": "UDP" }])),
            service("a", "headless", "None", &port),
            service("a", "external", "", &port),
            service("a", "no-ports", "10.0.0.2", &json!([])),
            service("b", "other", "10.0.0.3", &port),
        ]
    }

    fn found(namespace: &str, links: bool) -> Vec<(String, String)> {
        service_variables(&services(), namespace, links).into()
    }

    const API: [(&str, &str); 8] = [
        ("KUBERNETES_SERVICE_HOST", "10.0.0.1"),
        ("KUBERNETES_SERVICE_PORT", "443"),
        ("KUBERNETES_SERVICE_PORT_HTTPS", "443"),
        ("KUBERNETES_PORT", "tcp://10.0.0.1:443"),
        ("KUBERNETES_PORT_443_TCP", "tcp://10.0.0.1:443"),
        ("KUBERNETES_PORT_443_TCP_PROTO", "tcp"),
        ("KUBERNETES_PORT_443_TCP_PORT", "443"),
        ("KUBERNETES_PORT_443_TCP_ADDR", "10.0.0.1"),
    ];

    fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_pod_learns_of_the_services_of_its_namespace_and_of_the_api_server() {
        let own = [
            ("MY_DB_SERVICE_HOST", "fd00::5"),
            ("MY_DB_SERVICE_PORT", "53"),
            ("MY_DB_PORT", "udp://[fd00::5]:53"),
            ("MY_DB_PORT_53_UDP", "udp://[fd00::5]:53"),
            ("MY_DB_PORT_53_UDP_PROTO", "udp"),
            ("MY_DB_PORT_53_UDP_PORT", "53"),
            ("MY_DB_PORT_53_UDP_ADDR", "fd00::5"),
        ];
        assert_eq!(found("a", true), owned(&[API.as_slice(), own.as_slice()].concat()));
    }

    #[test]
    fn who_wants_no_links_learns_of_the_api_server_only() {
        assert_eq!(found("a", false), owned(&API));
        assert_eq!(found("default", false), owned(&API));
    }

    #[test]
    fn a_service_of_the_same_name_in_the_pods_namespace_wins() {
        let own = service("a", "kubernetes", "10.9.9.9", &json!([{ "port": 6443 }]));
        let all = [&services()[0], &own];
        let variables = service_variables(all, "a", true);
        assert_eq!(variables.get("KUBERNETES_SERVICE_HOST"), Some("10.9.9.9"));
        assert_eq!(variables.get("KUBERNETES_PORT_443_TCP"), None);
    }
}
