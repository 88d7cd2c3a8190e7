use std::ffi::OsString;

use clap::{Args, Parser, Subcommand};

use crate::images::ImageFlags;

/// The command line as it was given: nothing in it is checked yet.
#[derive(Debug, Parser)]
#[command(name = "coracle", version, about = "A Kubernetes node for WebAssembly")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Joins a cluster as a node and runs the pods scheduled to it as WebAssembly.
    Node(Box<NodeFlags>),
    /// Compiles one program; the node starts it for itself.
    #[command(hide = true)]
    Compile {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

/// The flags of `coracle node`. They have the kubelet's names where the kubelet has them; each has an environment
/// variable, which the flag overrides.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct NodeFlags {
    /// The kubeconfig with which the node acts as `system:node:<its name>` [default: the file in KUBECONFIG]
    #[arg(long, env = "CORACLE_KUBECONFIG", value_name = "FILE")]
    pub(crate) kubeconfig: Option<OsString>,

    /// The node's name [default: this machine's host name in lower case]
    #[arg(long, env = "CORACLE_HOSTNAME_OVERRIDE", value_name = "NAME")]
    pub(crate) hostname_override: Option<String>,

    /// The address other machines reach the node by, or one IPv4 and one IPv6 address with a comma between [default:
    /// the address from which this machine reaches the API server]
    #[arg(long, env = "CORACLE_NODE_IP", value_name = "IP[,IP]")]
    pub(crate) node_ip: Option<String>,

    /// Where pods live: `auto` for addresses of their own, from the node's range, where this machine allows it, else the
    /// node's; `node` for the node's address in any case [default: auto]
    #[arg(long, env = "CORACLE_POD_NETWORK", value_name = "auto|node")]
    pub(crate) pod_network: Option<String>,

    /// The port of the node's HTTPS API [default: 10250]
    #[arg(long, env = "CORACLE_PORT", allow_negative_numbers = true, value_name = "PORT")]
    pub(crate) port: Option<String>,

    /// The directory for images, compiled code, pods and logs; made when missing [default: /var/lib/coracle]
    #[arg(long, env = "CORACLE_ROOT_DIR", value_name = "DIRECTORY")]
    pub(crate) root_dir: Option<OsString>,

    /// Labels of the Node beside its own, such as `zone=a,example.com/kind=edge`
    #[arg(long, env = "CORACLE_NODE_LABELS", value_name = "KEY=VALUE,…")]
    pub(crate) node_labels: Option<String>,

    /// Taints of a Node that is new, in place of the usual ones; empty for none [default:
    /// kubernetes.io/arch=wasm32-wasi:NoSchedule,kubernetes.io/arch=wasm32-wasi:NoExecute]
    #[arg(long, env = "CORACLE_REGISTER_WITH_TAINTS", value_name = "KEY=VALUE:EFFECT,…")]
    pub(crate) register_with_taints: Option<String>,

    /// The most pods; it lowers what the node works out from descriptors, memory mappings and memory, and never
    /// raises it
    #[arg(long, env = "CORACLE_MAX_PODS", allow_negative_numbers = true, value_name = "NUMBER")]
    pub(crate) max_pods: Option<String>,

    /// What must stay free, or the node takes no more pods; a signal that is not named has no threshold [default:
    /// memory.available<100Mi,nodefs.available<10%,nodefs.inodesFree<5%]
    #[arg(long, env = "CORACLE_EVICTION_HARD", value_name = "SIGNAL<QUANTITY,…")]
    pub(crate) eviction_hard: Option<String>,

    /// The serving certificate, PEM; needs --tls-private-key-file [default: one made at start, signed by itself]
    #[arg(long, env = "CORACLE_TLS_CERT_FILE", value_name = "FILE")]
    pub(crate) tls_cert_file: Option<OsString>,

    /// The serving certificate's private key, PEM
    #[arg(long, env = "CORACLE_TLS_PRIVATE_KEY_FILE", value_name = "FILE")]
    pub(crate) tls_private_key_file: Option<OsString>,

    /// The authorities, PEM, whose client certificates the HTTPS API accepts [default: the kubeconfig's certificate
    /// authority]
    #[arg(long, env = "CORACLE_CLIENT_CA_FILE", value_name = "FILE")]
    pub(crate) client_ca_file: Option<OsString>,

    /// A registry that is spoken to without TLS; may be repeated
    #[arg(long, env = "CORACLE_INSECURE_REGISTRY", value_name = "HOST[:PORT]", value_delimiter = ',')]
    pub(crate) insecure_registry: Vec<String>,

    #[command(flatten)]
    pub(crate) images: ImageFlags,

    /// A path of this machine below which pods may mount paths of it (hostPath); may be repeated [default: none]
    #[arg(long, env = "CORACLE_ALLOWED_HOST_PATH", value_name = "PREFIX", value_delimiter = ',')]
    pub(crate) allowed_host_path: Vec<OsString>,

    /// The cluster's name servers, for pods that want them [default: none: pods use this machine's]
    #[arg(long, env = "CORACLE_CLUSTER_DNS", value_name = "IP,…")]
    pub(crate) cluster_dns: Option<String>,

    /// The cluster's domain [default: cluster.local]
    #[arg(long, env = "CORACLE_CLUSTER_DOMAIN", value_name = "DOMAIN")]
    pub(crate) cluster_domain: Option<String>,

    /// How long pods have to end when the machine goes down, such as 30s; 0 for no more than when the agent stops
    /// [default: 0]
    #[arg(long, env = "CORACLE_SHUTDOWN_GRACE_PERIOD", value_name = "DURATION")]
    pub(crate) shutdown_grace_period: Option<String>,

    /// The part of --shutdown-grace-period that is kept for critical pods, which end last [default: 0]
    #[arg(long, env = "CORACLE_SHUTDOWN_GRACE_PERIOD_CRITICAL_PODS", value_name = "DURATION")]
    pub(crate) shutdown_grace_period_critical_pods: Option<String>,

    /// How long pods have by their priority, in place of the two before: each time is for pods of that priority and above, up to
    /// the next one, and the lowest end first
    #[arg(long, env = "CORACLE_SHUTDOWN_GRACE_PERIOD_BY_POD_PRIORITY", value_name = "PRIORITY=DURATION,…")]
    pub(crate) shutdown_grace_period_by_pod_priority: Option<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_flag_has_the_environment_variable_of_its_name() {
        let mut command = Arguments::command();
        let node = command.find_subcommand_mut("node").unwrap();
        for flag in node.get_arguments().filter(|flag| flag.get_id() != "help") {
            let long = flag.get_long().unwrap();
            let variable = format!("CORACLE_{}", long.to_uppercase().replace('-', "_"));
            assert_eq!(flag.get_env().and_then(|name| name.to_str()), Some(variable.as_str()));
        }
        command.debug_assert();
    }
}
