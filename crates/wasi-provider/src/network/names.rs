//! Names of other machines, looked up as a pod's `resolv.conf` and `hosts` say.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use coracle_lifecycle::{Dns, Reach};
use hickory_resolver::proto::rr::Name;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};

use super::servers::NameServers;

/// What is read of a pod's hosts file at most.
const HOSTS: u64 = 64 << 10;
/// The port of name servers.
const PORT: u16 = 53;

/// Looks names up for one container.
pub(crate) struct Names {
    servers: NameServers,
    /// The container's root directory, with its `/etc/hosts`.
    root: PathBuf,
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
        Self { servers: NameServers::new(dns, reach, PORT), root: root.to_owned() }
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
        self.servers.look_up(&parsed).await
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

#[cfg(test)]
#[path = "names_tests.rs"]
mod tests;
