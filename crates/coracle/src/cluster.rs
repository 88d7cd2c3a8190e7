use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use k8s_openapi::api::authentication::v1::{SelfSubjectReview, UserInfo};
use kube::api::{Api, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::net::{UdpSocket, lookup_host};
use tokio::time::timeout;

/// How long the API server has to answer before the node gives up its start.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a connection to the API server may take.
const CONNECT: Duration = Duration::from_secs(5);

/// The cluster that a kubeconfig leads to.
pub(crate) struct Cluster {
    pub(crate) client: Client,
    config: Config,
}

impl Cluster {
    /// Reads the kubeconfig. Nothing is asked of the API server yet.
    pub(crate) async fn open(kubeconfig: &Path) -> anyhow::Result<Self> {
        let named = || format!("--kubeconfig: {} cannot be used", kubeconfig.display());
        // Read here, so that the error of a missing file is the file system's own.
        let text = std::fs::read_to_string(kubeconfig).with_context(named)?;
        Kubeconfig::from_yaml(&text).with_context(named)?;
        let parsed = Kubeconfig::read_from(kubeconfig).with_context(named)?;
        let options = KubeConfigOptions::default();
        let mut config = Config::from_custom_kubeconfig(parsed, &options).await.with_context(named)?;
        config.connect_timeout = Some(CONNECT);
        let client = Client::try_from(config.clone()).with_context(named)?;
        Ok(Self { client, config })
    }

    /// Makes sure that the API server answers, and knows this client as the node of this name.
    pub(crate) async fn check_identity(&self, node: &str) -> anyhow::Result<()> {
        let reviews: Api<SelfSubjectReview> = Api::all(self.client.clone());
        let (parameters, review) = (PostParams::default(), SelfSubjectReview::default());
        let server = &self.config.cluster_url;
        let answer = timeout(PATIENCE, reviews.create(&parameters, &review)).await;
        match answer {
            Err(_) => bail!("--kubeconfig: the API server at {server} does not answer within {PATIENCE:?}"),
            Ok(Ok(review)) => is_node(review.status.and_then(|status| status.user_info), node),
            Ok(Err(kube::Error::Api(status))) if status.code == 401 => {
                bail!("--kubeconfig: the API server at {server} refuses its credentials")
            }
            // An API server that does not tell who asks is no reason not to ask.
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 403 | 404) => Ok(()),
            Ok(Err(kube::Error::Api(status))) => {
                bail!("--kubeconfig: the API server at {server} answers {}: {}", status.code, status.message)
            }
            Ok(Err(error)) => {
                // The layers between say no more than that there is a cause.
                let cause = anyhow!(error).root_cause().to_string();
                bail!("--kubeconfig: the API server at {server} cannot be reached: {cause}")
            }
        }
    }

    /// The address from which this machine reaches the API server.
    pub(crate) async fn own_address(&self) -> anyhow::Result<IpAddr> {
        let named = || format!("--node-ip: no address of this machine leads to {}", self.config.cluster_url);
        let server = self.server_address().await.with_context(named)?;
        let any: SocketAddr = if server.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
        // Connecting a datagram socket sends nothing: it asks the kernel for the route.
        let socket = UdpSocket::bind(any).await.with_context(named)?;
        socket.connect(server).await.with_context(named)?;
        Ok(socket.local_addr().with_context(named)?.ip())
    }

    async fn server_address(&self) -> anyhow::Result<SocketAddr> {
        let url = &self.config.cluster_url;
        let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
        let mut found = lookup_host((host, url.port_u16().unwrap_or(443))).await?;
        found.next().context("its name has no address")
    }

    /// The cluster's certificate authorities, DER, where the kubeconfig names them.
    pub(crate) fn authorities(&self) -> Option<Vec<Vec<u8>>> {
        self.config.root_cert.clone()
    }
}

/// Whether the API server knows this client as the node of this name, where it tells.
fn is_node(user: Option<UserInfo>, node: &str) -> anyhow::Result<()> {
    let Some(user) = user else { return Ok(()) };
    let (name, wanted) = (user.username.unwrap_or_default(), format!("system:node:{node}"));
    if name != wanted {
        bail!(
            "--kubeconfig: its user is {name}, and a node called {node} must be {wanted} (--hostname-override)"
        );
    }
    if !user.groups.iter().flatten().any(|group| group == "system:nodes") {
        bail!("--kubeconfig: its user {name} is not in the group system:nodes");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, group: &str, expected: Option<&str>) {
        let user = UserInfo {
            username: Some(name.to_owned()),
            groups: Some(vec![group.to_owned()]),
            ..UserInfo::default()
        };
        let outcome = is_node(Some(user), "n1");
        assert_eq!(outcome.err().map(|error| error.to_string()).as_deref(), expected);
    }

    #[test]
    fn a_node_acts_as_itself() {
        check("system:node:n1", "system:nodes", None);
        let other = "--kubeconfig: its user is admin, and a node called n1 must be system:node:n1 (--hostname-override)";
        check("admin", "system:masters", Some(other));
        check(
            "system:node:n1",
            "x",
            Some("--kubeconfig: its user system:node:n1 is not in the group system:nodes"),
        );
    }
}
