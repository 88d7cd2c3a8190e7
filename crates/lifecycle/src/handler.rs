use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::{
    Container, ExecAction, GRPCAction, HTTPGetAction, LifecycleHandler, Probe, TCPSocketAction,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use thiserror::Error;

use crate::environment::expand;

/// What a probe tries or a hook does, with everything that the pod leaves open filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handler {
    /// Run a command in the container.
    Exec(Vec<String>),
    /// Ask an HTTP server.
    Http(HttpGet),
    /// Connect to a server.
    Tcp(Endpoint),
    /// Ask a server by the gRPC health protocol (<https://github.com/grpc/grpc/blob/master/doc/health-checking.md>).
    Grpc {
        /// The server.
        endpoint: Endpoint,
        /// The service to ask for; the server as a whole when empty.
        service: String,
    },
    /// Wait.
    Sleep(Duration),
}

/// A server: a name or an address, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The name or address.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') {
            write!(formatter, "[{host}]:{port}")
        } else {
            write!(formatter, "{host}:{port}")
        }
    }
}

/// One request to an HTTP server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpGet {
    /// Whether by HTTPS.
    pub tls: bool,
    /// The server.
    pub endpoint: Endpoint,
    /// Path and query as the pod has them.
    pub path: String,
    /// Headers in the order of the pod.
    pub headers: Vec<(String, String)>,
}

impl HttpGet {
    /// The same request to a server that does not speak HTTPS: it takes nothing there that is secret.
    #[must_use]
    pub fn without_tls(&self) -> Self {
        let is_public = |header: &&(String, String)| !header.0.eq_ignore_ascii_case("authorization");
        let headers = self.headers.iter().filter(is_public).cloned().collect();
        Self { tls: false, headers, ..self.clone() }
    }
}

/// Why a handler cannot be tried. The messages are those of the kubelet.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidHandler {
    /// None of the handlers that there can be is given.
    #[error("missing probe handler")]
    Missing,
    /// The container has no port of this name.
    #[error("strconv.Atoi: parsing {0:?}: invalid syntax")]
    UnknownPort(String),
    /// Not a port.
    #[error("invalid port number: {0}")]
    InvalidPort(i64),
    /// The pod has no address yet.
    #[error("failed to find networking container")]
    NoAddress,
}

/// Fills in what one container's handlers leave open.
struct Resolver<'a> {
    container: &'a Container,
    address: Option<IpAddr>,
}

impl Handler {
    /// What a probe of `container` tries, whose pod has this address. A command sees the variables of the container
    /// as the pod's spec has them: those that come from elsewhere are empty.
    ///
    /// # Errors
    /// When there is no handler, or it names a port that the container does not have.
    pub fn of_probe(
        probe: &Probe,
        container: &Container,
        address: Option<IpAddr>,
    ) -> Result<Self, InvalidHandler> {
        let resolver = Resolver { container, address };
        if let Some(action) = &probe.exec {
            Ok(Self::Exec(resolver.expanded(action)))
        } else if let Some(action) = &probe.http_get {
            resolver.http(action).map(Self::Http)
        } else if let Some(action) = &probe.tcp_socket {
            resolver.tcp(action).map(Self::Tcp)
        } else if let Some(action) = &probe.grpc {
            resolver.grpc(action)
        } else {
            Err(InvalidHandler::Missing)
        }
    }

    /// What a hook of `container` does.
    ///
    /// # Errors
    /// As [`Self::of_probe`]; a connection alone is no hook.
    pub fn of_hook(
        hook: &LifecycleHandler,
        container: &Container,
        address: Option<IpAddr>,
    ) -> Result<Self, InvalidHandler> {
        if let Some(action) = &hook.exec {
            Ok(Self::Exec(action.command.clone().unwrap_or_default()))
        } else if let Some(action) = &hook.http_get {
            Resolver { container, address }.http(action).map(Self::Http)
        } else if let Some(action) = &hook.sleep {
            Ok(Self::Sleep(Duration::from_secs(u64::try_from(action.seconds).unwrap_or(0))))
        } else {
            Err(InvalidHandler::Missing)
        }
    }
}

impl Resolver<'_> {
    fn expanded(&self, action: &ExecAction) -> Vec<String> {
        let variables = || self.container.env.iter().flatten().rev();
        let value = |name: &str| {
            let known = variables().find(|variable| variable.name == name);
            known.map(|variable| variable.value.as_deref().unwrap_or_default())
        };
        action.command.iter().flatten().map(|text| expand(text, value)).collect()
    }

    fn http(&self, action: &HTTPGetAction) -> Result<HttpGet, InvalidHandler> {
        let headers = action.http_headers.iter().flatten();
        Ok(HttpGet {
            tls: action.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")),
            endpoint: self.endpoint(action.host.as_deref(), &action.port)?,
            path: action.path.clone().unwrap_or_default(),
            headers: headers.map(|header| (header.name.clone(), header.value.clone())).collect(),
        })
    }

    fn tcp(&self, action: &TCPSocketAction) -> Result<Endpoint, InvalidHandler> {
        self.endpoint(action.host.as_deref(), &action.port)
    }

    fn grpc(&self, action: &GRPCAction) -> Result<Handler, InvalidHandler> {
        let endpoint = self.endpoint(None, &IntOrString::Int(action.port))?;
        Ok(Handler::Grpc { endpoint, service: action.service.clone().unwrap_or_default() })
    }

    fn endpoint(&self, host: Option<&str>, port: &IntOrString) -> Result<Endpoint, InvalidHandler> {
        let port = self.port(port)?;
        let given = host.filter(|host| !host.is_empty()).map(ToOwned::to_owned);
        let own = || self.address.map(|address| address.to_string());
        let host = given.or_else(own).ok_or(InvalidHandler::NoAddress)?;
        Ok(Endpoint { host, port })
    }

    fn port(&self, port: &IntOrString) -> Result<u16, InvalidHandler> {
        let number = match port {
            IntOrString::Int(number) => i64::from(*number),
            IntOrString::String(name) => self.named_port(name)?,
        };
        let valid = u16::try_from(number).ok().filter(|port| *port > 0);
        valid.ok_or(InvalidHandler::InvalidPort(number))
    }

    /// A port by its name; a number may be written as a text too.
    fn named_port(&self, name: &str) -> Result<i64, InvalidHandler> {
        let mut ports = self.container.ports.iter().flatten();
        let named = ports.find(|port| port.name.as_deref() == Some(name));
        let number = named.map(|port| i64::from(port.container_port)).or_else(|| name.parse().ok());
        number.ok_or_else(|| InvalidHandler::UnknownPort(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn container() -> Container {
        let container = json!({
            "name": "app", "ports": [{"name": "web", "containerPort": 8080}],
            "env": [{"name": "A", "value": "0"}, {"name": "A", "value": "1"}, {"name": "B", "valueFrom": {}}, {"name": "C"}],
        });
        serde_json::from_value(container).unwrap()
    }

    fn probe(probe: Value) -> Result<Handler, InvalidHandler> {
        let address = "192.0.2.5".parse().unwrap();
        Handler::of_probe(&serde_json::from_value(probe).unwrap(), &container(), Some(address))
    }

    fn hook(hook: Value) -> Result<Handler, InvalidHandler> {
        let address = "2001:db8::5".parse().unwrap();
        Handler::of_hook(&serde_json::from_value(hook).unwrap(), &container(), Some(address))
    }

    fn endpoint(host: &str, port: u16) -> Endpoint {
        Endpoint { host: host.to_owned(), port }
    }

    #[test]
    fn the_pods_address_is_probed_unless_another_host_is_named() {
        let check = |given: Value, expected: Result<Endpoint, InvalidHandler>| {
            assert_eq!(probe(json!({ "tcpSocket": given })), expected.map(Handler::Tcp));
        };
        check(json!({"port": 80}), Ok(endpoint("192.0.2.5", 80)));
        check(json!({"port": "web", "host": ""}), Ok(endpoint("192.0.2.5", 8080)));
        check(json!({"port": "81", "host": "db"}), Ok(endpoint("db", 81)));
        check(json!({"port": "other"}), Err(InvalidHandler::UnknownPort("other".to_owned())));
        check(json!({"port": 0}), Err(InvalidHandler::InvalidPort(0)));
        check(json!({"port": 65536}), Err(InvalidHandler::InvalidPort(65536)));
        check(json!({"port": "-1"}), Err(InvalidHandler::InvalidPort(-1)));
        let error = InvalidHandler::UnknownPort("other".to_owned()).to_string();
        assert_eq!(error, "strconv.Atoi: parsing \"other\": invalid syntax");
    }

    #[test]
    fn servers_are_written_as_in_a_url() {
        let written = [("192.0.2.5", 80), ("2001:db8::5", 80), ("db", 1)]
            .map(|(host, port)| endpoint(host, port).to_string());
        assert_eq!(written, ["192.0.2.5:80", "[2001:db8::5]:80", "db:1"]);
    }

    #[test]
    fn a_pod_without_an_address_can_be_probed_elsewhere_only() {
        let of =
            |probe: Value| Handler::of_probe(&serde_json::from_value(probe).unwrap(), &container(), None);
        assert_eq!(of(json!({"tcpSocket": {"port": 80}})), Err(InvalidHandler::NoAddress));
        let elsewhere = of(json!({"tcpSocket": {"port": 80, "host": "db"}}));
        assert_eq!(elsewhere, Ok(Handler::Tcp(endpoint("db", 80))));
    }

    #[test]
    fn requests_are_as_the_pod_has_them() {
        let given = json!({"httpGet": {
            "port": "web", "path": "/a?b=c", "scheme": "HTTPS", "httpHeaders": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}],
        }});
        let headers = [("A", "1"), ("A", "2")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        let expected = HttpGet {
            tls: true,
            endpoint: endpoint("192.0.2.5", 8080),
            path: "/a?b=c".to_owned(),
            headers: headers.into(),
        };
        assert_eq!(probe(given), Ok(Handler::Http(expected)));
        let secret = json!({"httpGet": {"port": 1, "scheme": "HTTPS", "httpHeaders": [{"name": "authorization", "value": "x"}, {"name": "A", "value": "1"}]}});
        let Ok(Handler::Http(secret)) = hook(secret) else { panic!() };
        assert_eq!(secret.without_tls().headers, [("A".to_owned(), "1".to_owned())]);
        assert!(secret.tls && !secret.without_tls().tls);
        let plain = hook(json!({"httpGet": {"port": 1}})).unwrap();
        let Handler::Http(plain) = plain else { panic!("{plain:?}") };
        assert_eq!((plain.tls, plain.path.as_str()), (false, ""));
        assert_eq!(plain.endpoint, endpoint("2001:db8::5", 1));
    }

    #[test]
    fn other_handlers_are_told_apart() {
        let grpc = Handler::Grpc { endpoint: endpoint("192.0.2.5", 9), service: "s".to_owned() };
        assert_eq!(probe(json!({"grpc": {"port": 9, "service": "s"}})), Ok(grpc));
        assert_eq!(probe(json!({})), Err(InvalidHandler::Missing));
        assert_eq!(hook(json!({"sleep": {"seconds": 0}})), Ok(Handler::Sleep(Duration::ZERO)));
        assert_eq!(hook(json!({"sleep": {"seconds": 3}})), Ok(Handler::Sleep(Duration::from_secs(3))));
        assert_eq!(hook(json!({"tcpSocket": {"port": 1}})), Err(InvalidHandler::Missing));
    }

    #[test]
    fn commands_of_probes_see_plain_variables_and_those_of_hooks_none() {
        let command = json!({"exec": {"command": ["$(A)", "$(B)", "$(C)", "$$(A)"]}});
        let texts = |texts: [&str; 4]| Ok(Handler::Exec(texts.map(ToOwned::to_owned).into()));
        assert_eq!(probe(command.clone()), texts(["1", "", "", "$(A)"]));
        assert_eq!(hook(command), texts(["$(A)", "$(B)", "$(C)", "$$(A)"]));
    }
}
