//! Names of other machines, looked up as a pod's `resolv.conf` and `hosts` say.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use coracle_lifecycle::{Destination, Dns, Reach};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts, ServerOrderingStrategy,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::Name;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use tracing::debug;

/// What is read of a pod's hosts file at most.
const HOSTS: u64 = 64 << 10;
/// Answers that one container keeps for as long as they live.
const ANSWERS: u64 = 64;
/// The port of name servers.
const PORT: u16 = 53;
/// The bounds that `resolv.conf` has for its options.
const MOST_DOTS: usize = 15;
const LONGEST_WAIT: u64 = 30;
const MOST_ATTEMPTS: usize = 5;

/// Looks names up for one container.
pub(crate) struct Names {
    config: ResolverConfig,
    options: ResolverOpts,
    /// The container's root directory, with its `/etc/hosts`.
    root: PathBuf,
    /// Made when the first name is looked up, which most containers never do.
    resolver: OnceLock<Option<TokioResolver>>,
}

/// Why a name has no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LookupError {
    /// That is no name.
    Invalid,
    /// There is none of that name.
    Unknown,
    /// No name server has answered in time.
    Temporary,
    /// No name server can be asked.
    Permanent,
}

impl Names {
    pub(crate) fn new(dns: &Dns, reach: &Reach, root: &Path) -> Self {
        Self::on_port(dns, reach, root, PORT)
    }

    fn on_port(dns: &Dns, reach: &Reach, root: &Path, port: u16) -> Self {
        let servers =
            dns.servers.iter().filter_map(|server| name_server(*server, reach, dns, port)).collect();
        let searches = dns.searches.iter().filter_map(|domain| Name::from_utf8(domain).ok()).collect();
        let config = ResolverConfig::from_parts(None, searches, servers);
        Self { config, options: options(dns), root: root.to_owned(), resolver: OnceLock::new() }
    }

    /// The addresses of a name: what it says when it is an address, then what the hosts file says, then the servers.
    pub(crate) async fn look_up(&self, name: &str) -> Result<Vec<IpAddr>, LookupError> {
        let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        if let Ok(address) = bare.parse() {
            return Ok(vec![address]);
        }
        let parsed = Name::from_utf8(name).map_err(|_| LookupError::Invalid)?;
        if parsed.num_labels() == 0 {
            return Err(LookupError::Invalid);
        }
        let plain = name.trim_end_matches('.');
        let listed = self.listed(plain);
        if !listed.is_empty() {
            return Ok(listed);
        }
        if is_localhost(plain) {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        let resolver =
            self.resolver.get_or_init(|| self.resolver()).as_ref().ok_or(LookupError::Permanent)?;
        let found = resolver.lookup_ip(parsed).await.map_err(|error| {
            debug!(name, %error, "a guest's name look-up has failed");
            LookupError::from(&error)
        })?;
        Ok(found.iter().collect())
    }

    fn resolver(&self) -> Option<TokioResolver> {
        if self.config.name_servers().is_empty() {
            return None;
        }
        let provider = TokioRuntimeProvider::default();
        let mut builder = TokioResolver::builder_with_config(self.config.clone(), provider);
        *builder.options_mut() = self.options.clone();
        builder.build().ok()
    }

    /// The addresses that the container's own hosts file gives for a name.
    fn listed(&self, name: &str) -> Vec<IpAddr> {
        let Some(file) = open_hosts(&self.root) else { return Vec::new() };
        let lines = BufReader::new(file.take(HOSTS)).lines().map_while(Result::ok);
        lines.filter_map(|line| address_of(&line, name)).collect()
    }
}

/// The guest may have put anything in the place of the file: only a plain file inside its root is read.
fn open_hosts(root: &Path) -> Option<File> {
    let directory = rustix::fs::openat(CWD, root, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let opened = rustix::fs::openat2(directory, "etc/hosts", flags, Mode::empty(), resolve).ok()?;
    let file = File::from(opened);
    file.metadata().is_ok_and(|metadata| metadata.is_file()).then_some(file)
}

fn address_of(line: &str, name: &str) -> Option<IpAddr> {
    let mut words = line.split('#').next()?.split_whitespace();
    let address = words.next()?.parse().ok()?;
    words.any(|word| word.trim_end_matches('.').eq_ignore_ascii_case(name)).then_some(address)
}

/// RFC 6761: never asked of a server.
fn is_localhost(name: &str) -> bool {
    name.rsplit('.').next().is_some_and(|last| last.eq_ignore_ascii_case("localhost"))
}

/// A name server that is asked from the pod's own address; `None` when the pod cannot reach it.
fn name_server(server: IpAddr, reach: &Reach, dns: &Dns, port: u16) -> Option<NameServerConfig> {
    let (server, source) = match reach.destination(server) {
        Destination::Address(address, source) => (address, source),
        Destination::Itself { loopback, .. } => (loopback, Some(loopback)),
        Destination::Unreachable => return None,
    };
    let by_tcp_alone = dns.options.iter().any(|option| option == "use-vc");
    let mut config =
        if by_tcp_alone { NameServerConfig::tcp(server) } else { NameServerConfig::udp_and_tcp(server) };
    for connection in &mut config.connections {
        connection.port = port;
        connection.bind_addr = source.map(|source| SocketAddr::new(source, 0));
    }
    Some(config)
}

fn options(dns: &Dns) -> ResolverOpts {
    let mut options = ResolverOpts::default();
    options.use_hosts_file = ResolveHosts::Never;
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
    options.num_concurrent_reqs = 1;
    options.cache_size = ANSWERS;
    options.preserve_intermediates = false;
    for option in &dns.options {
        let (name, value) = option.split_once(':').unwrap_or((option, ""));
        let number = || value.parse::<u64>().ok();
        let small =
            |most: usize| number().and_then(|number| usize::try_from(number).ok()).map(|n| n.min(most));
        match name {
            "ndots" => options.ndots = small(MOST_DOTS).unwrap_or(options.ndots),
            "attempts" => options.attempts = small(MOST_ATTEMPTS).unwrap_or(options.attempts),
            "timeout" => {
                let seconds = number().map(|seconds| seconds.clamp(1, LONGEST_WAIT));
                options.timeout = seconds.map_or(options.timeout, Duration::from_secs);
            }
            "rotate" => options.server_ordering_strategy = ServerOrderingStrategy::RoundRobin,
            _ => {}
        }
    }
    options
}

impl From<&NetError> for LookupError {
    fn from(error: &NetError) -> Self {
        if error.is_nx_domain() || error.is_no_records_found() { Self::Unknown } else { Self::Temporary }
    }
}

#[cfg(test)]
#[path = "names_tests.rs"]
mod tests;
