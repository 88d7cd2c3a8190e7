//! The name servers of a pod, asked as `resolv.conf` says: for one name of the search list after the other, one server after the
//! other, as often as it says. <https://man7.org/linux/man-pages/man5/resolv.conf.5.html>

use std::net::{IpAddr, SocketAddr};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use coracle_lifecycle::{Destination, Dns, Reach};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{Name, RecordType};
use tokio::join;
use tracing::debug;

use super::names::LookupError;

/// Answers that one container keeps of each server for as long as they live.
const ANSWERS: u64 = 64;
/// The bounds that `resolv.conf` has for its options.
const MOST_DOTS: usize = 15;
const LONGEST_WAIT: u64 = 30;
const MOST_ATTEMPTS: usize = 5;

/// The name servers of one container.
pub(super) struct NameServers {
    configs: Vec<NameServerConfig>,
    searches: Vec<Name>,
    options: Options,
    /// Those of the servers, made when the first name is looked up, which most containers never do.
    resolvers: OnceLock<Vec<TokioResolver>>,
    /// How many names have been looked up, where each has another server to begin with.
    turn: AtomicUsize,
}

/// The options of `resolv.conf`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Options {
    /// With so many dots a name is asked for as it is before the search list is tried.
    dots: usize,
    timeout: Duration,
    attempts: usize,
    rotates: bool,
    by_tcp_alone: bool,
    extended: bool,
}

/// Why one name has no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Lack {
    /// That is the answer.
    Unknown,
    /// No server has answered in time.
    Silent,
    /// The servers say that they cannot tell.
    Failed,
}

impl NameServers {
    /// Those that the pod can reach, asked from its own address on this port.
    pub(super) fn new(dns: &Dns, reach: &Reach, port: u16) -> Self {
        let options = Options::of(&dns.options);
        let config = |server: &IpAddr| server_config(*server, reach, options.by_tcp_alone, port);
        Self {
            configs: dns.servers.iter().filter_map(config).collect(),
            searches: dns.searches.iter().filter_map(|domain| Name::from_utf8(domain).ok()).collect(),
            options,
            resolvers: OnceLock::new(),
            turn: AtomicUsize::new(0),
        }
    }

    /// The addresses of a name, those of IPv4 first.
    pub(super) async fn look_up(&self, name: &Name) -> Result<Vec<IpAddr>, LookupError> {
        if self.configs.is_empty() {
            return Err(LookupError::Permanent);
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut has_failed = false;
        for name in self.candidates(name) {
            match self.ask(&name, turn).await {
                Ok(found) => return Ok(found),
                Err(Lack::Unknown) => {}
                // A shorter name may be known to others; nobody who is silent is asked for that.
                Err(Lack::Failed) => has_failed = true,
                Err(Lack::Silent) => return Err(LookupError::Temporary),
            }
        }
        Err(if has_failed { LookupError::Temporary } else { LookupError::Unknown })
    }

    /// What a name may stand for, in the order in which that is tried.
    fn candidates(&self, name: &Name) -> Vec<Name> {
        let mut whole = name.clone();
        whole.set_fqdn(true);
        if name.is_fqdn() {
            return vec![whole];
        }
        let searched = self.searches.iter().filter_map(|domain| name.clone().append_domain(domain).ok());
        let mut all: Vec<Name> = searched.collect();
        let dots = name.iter().len().saturating_sub(1);
        all.insert(if dots >= self.options.dots { 0 } else { all.len() }, whole);
        all
    }

    /// The first word that there is on a name: its addresses, or that there are none.
    async fn ask(&self, name: &Name, turn: usize) -> Result<Vec<IpAddr>, Lack> {
        let resolvers = self.resolvers.get_or_init(|| self.resolvers());
        let first = if self.options.rotates { turn % self.configs.len() } else { 0 };
        let (later, sooner) = resolvers.split_at(first.min(resolvers.len()));
        let mut lack = Lack::Silent;
        for _ in 0..self.options.attempts {
            for server in sooner.iter().chain(later) {
                match addresses(server, name).await {
                    Err(why @ (Lack::Silent | Lack::Failed)) => lack = lack.max(why),
                    said => return said,
                }
            }
        }
        Err(lack)
    }

    /// One for each server: which of them is asked when is not theirs to choose.
    fn resolvers(&self) -> Vec<TokioResolver> {
        let made = self.configs.iter().map(|config| {
            let config = ResolverConfig::from_parts(None, Vec::new(), vec![config.clone()]);
            let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
            *builder.options_mut() = self.options.of_one_server();
            builder.build().ok()
        });
        made.flatten().collect()
    }
}

impl Options {
    fn of(texts: &[String]) -> Self {
        let mut options = Self {
            dots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
            rotates: false,
            by_tcp_alone: false,
            extended: false,
        };
        for text in texts {
            let (name, value) = text.split_once(':').unwrap_or((text, ""));
            let number = value.parse::<usize>().ok();
            match name {
                "ndots" => options.dots = number.map_or(options.dots, |dots| dots.min(MOST_DOTS)),
                "attempts" => {
                    options.attempts = number.map_or(options.attempts, |times| times.clamp(1, MOST_ATTEMPTS));
                }
                "timeout" => {
                    let seconds = value.parse::<u64>().ok().map(|seconds| seconds.clamp(1, LONGEST_WAIT));
                    options.timeout = seconds.map_or(options.timeout, Duration::from_secs);
                }
                "rotate" => options.rotates = true,
                "use-vc" => options.by_tcp_alone = true,
                "edns0" => options.extended = true,
                _ => {}
            }
        }
        options
    }

    fn of_one_server(&self) -> ResolverOpts {
        let mut options = ResolverOpts::default();
        options.use_hosts_file = ResolveHosts::Never;
        options.timeout = self.timeout;
        options.attempts = 0;
        options.edns0 = self.extended;
        options.cache_size = ANSWERS;
        options.preserve_intermediates = false;
        options
    }
}

/// A name server that is asked from the pod's own address; `None` when the pod cannot reach it.
fn server_config(server: IpAddr, reach: &Reach, by_tcp_alone: bool, port: u16) -> Option<NameServerConfig> {
    let (server, source) = match reach.destination(server) {
        Destination::Address(address, source) => (address, source),
        Destination::Itself { loopback, .. } => (loopback, Some(loopback)),
        Destination::Unreachable => return None,
    };
    let mut config =
        if by_tcp_alone { NameServerConfig::tcp(server) } else { NameServerConfig::udp_and_tcp(server) };
    for connection in &mut config.connections {
        connection.port = port;
        connection.bind_addr = source.map(|source| SocketAddr::new(source, 0));
    }
    Some(config)
}

/// What one server says of a name.
async fn addresses(server: &TokioResolver, name: &Name) -> Result<Vec<IpAddr>, Lack> {
    let ask = |kind| server.lookup(name.clone(), kind);
    let (old, new) = join!(ask(RecordType::A), ask(RecordType::AAAA));
    let (old, new) = (found(name, old), found(name, new));
    let all: Vec<IpAddr> = [&old, &new].into_iter().flatten().flatten().copied().collect();
    if !all.is_empty() {
        return Ok(all);
    }
    match (old, new) {
        // Whoever says that there is no such name means both.
        (Err(Lack::Unknown), _) | (_, Err(Lack::Unknown)) => Err(Lack::Unknown),
        (old, new) => Err(old.err().max(new.err()).unwrap_or(Lack::Unknown)),
    }
}

/// The addresses of one kind; none when the name exists without any.
fn found(name: &Name, answer: Result<Lookup, NetError>) -> Result<Vec<IpAddr>, Lack> {
    let error = match answer {
        Ok(found) => return Ok(found.answers().iter().filter_map(|record| record.data.ip_addr()).collect()),
        Err(error) => error,
    };
    debug!(%name, %error, "a guest's name look-up has failed");
    match error {
        error if error.is_nx_domain() => Err(Lack::Unknown),
        error if error.is_no_records_found() => Ok(Vec::new()),
        NetError::Timeout => Err(Lack::Silent),
        _ => Err(Lack::Failed),
    }
}

#[cfg(test)]
#[path = "servers_tests.rs"]
mod tests;
