//! Where a registry's content is asked for, as containerd's `hosts.toml` says it
//! (<https://github.com/containerd/containerd/blob/main/docs/hosts.md>).

use std::io;
use std::path::{Path, PathBuf};

use reqwest::Url;
use serde::Deserialize;
use thiserror::Error;

use crate::disk::read_limited;

/// No list of hosts and no certificates come near this many bytes.
const FILE_LIMIT: u64 = 1024 * 1024;
const HOSTS: &str = "hosts.toml";
/// The directory for all registries that have none of their own.
const ANY: &str = "_default";

/// Why the directory of registries cannot be used for one of them.
#[derive(Debug, Error)]
pub(crate) enum HostsError {
    #[error("{path} cannot be read: {cause}")]
    Unreadable { path: PathBuf, cause: io::Error },
    #[error("{path}: {why}")]
    Wrong { path: PathBuf, why: String },
}

/// A server that is asked for the content of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    /// Its address with the path before a repository's, such as `https://mirror.example/v2`.
    pub(crate) base: Url,
    /// Whether it is asked where tags lead.
    pub(crate) resolves: bool,
    /// Whether it is asked for content by digest.
    pub(crate) pulls: bool,
    pub(crate) tls: Tls,
    pub(crate) headers: Vec<(String, String)>,
    /// Whether it is the registry itself and no mirror.
    pub(crate) is_registry: bool,
}

/// How a server proves what it is, and this node what it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Tls {
    /// Files of authorities, PEM, trusted beside the system's.
    pub(crate) authorities: Vec<PathBuf>,
    /// A file with a certificate, PEM, and the file with its key unless that is the same.
    pub(crate) identity: Option<(PathBuf, Option<PathBuf>)>,
    pub(crate) is_unchecked: bool,
}

/// The servers for `registry` (`host[:port]` as references name it), in the order in which they are asked. The last is the
/// registry itself, at `usual` where the directory says nothing else.
pub(crate) fn hosts(directory: Option<&Path>, registry: &str, usual: &Url) -> Result<Vec<Host>, HostsError> {
    let candidates = directory.into_iter().flat_map(|directory| {
        let with_port = registry.rsplit_once(':').map(|(host, port)| format!("{host}_{port}_"));
        let names = [with_port, Some(registry.to_owned()), Some(ANY.to_owned())];
        names.into_iter().flatten().map(|name| directory.join(name))
    });
    match candidates.into_iter().find(|directory| directory.is_dir()) {
        Some(directory) => configured(&directory, usual),
        None => Ok(vec![itself(usual.clone(), Tls::default())]),
    }
}

fn itself(base: Url, tls: Tls) -> Host {
    Host { base, resolves: true, pulls: true, tls, headers: Vec::new(), is_registry: true }
}

fn configured(directory: &Path, usual: &Url) -> Result<Vec<Host>, HostsError> {
    let path = directory.join(HOSTS);
    let text = match read_limited(&path, FILE_LIMIT) {
        Ok(bytes) => bytes,
        // As docker lays out certificates.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(vec![itself(usual.clone(), certificates(directory)?)]);
        }
        Err(cause) => return Err(HostsError::Unreadable { path, cause }),
    };
    let wrong = |why: String| HostsError::Wrong { path: path.clone(), why };
    let text = String::from_utf8(text).map_err(|_| wrong("it is not UTF-8".to_owned()))?;
    read(&text, directory, usual).map_err(wrong)
}

/// The `.crt` files of a directory as authorities, and a `.cert` with the `.key` beside it as identity.
fn certificates(directory: &Path) -> Result<Tls, HostsError> {
    let entries = directory.read_dir().and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let unreadable = |cause| HostsError::Unreadable { path: directory.to_owned(), cause };
    let mut files: Vec<PathBuf> = entries.map_err(unreadable)?.iter().map(std::fs::DirEntry::path).collect();
    files.sort();
    let of_kind = |kind: &'static str| {
        files.iter().filter(move |file| file.extension().is_some_and(|extension| extension == kind)).cloned()
    };
    let identity = of_kind("cert").next().map(|file| (file.clone(), Some(file.with_extension("key"))));
    Ok(Tls { authorities: of_kind("crt").collect(), identity, is_unchecked: false })
}

#[derive(Deserialize)]
struct Document {
    server: Option<String>,
    #[serde(default)]
    host: toml::Table,
    #[serde(flatten)]
    of_server: Raw,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Raw {
    capabilities: Option<Vec<String>>,
    ca: Files,
    client: Option<Clients>,
    skip_verify: bool,
    override_path: bool,
    header: toml::Table,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Files {
    One(PathBuf),
    Several(Vec<PathBuf>),
}

impl Default for Files {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Clients {
    One(PathBuf),
    Several(Vec<PathBuf>),
    Pairs(Vec<Vec<PathBuf>>),
}

pub(crate) fn read(text: &str, directory: &Path, usual: &Url) -> Result<Vec<Host>, String> {
    let document: Document = toml::from_str(text).map_err(|error| error.message().to_owned())?;
    let mut hosts = Vec::new();
    for (address, raw) in document.host {
        let raw = Raw::deserialize(raw).map_err(|error| format!("host {address:?}: {}", error.message()))?;
        let base = address_of(&address, raw.override_path)?;
        hosts.push(host(raw, base, directory, false).map_err(|why| format!("host {address:?}: {why}"))?);
    }
    let base = match document.server {
        Some(server) => address_of(&server, document.of_server.override_path)?,
        None => usual.clone(),
    };
    hosts.push(host(document.of_server, base, directory, true)?);
    Ok(hosts)
}

fn host(raw: Raw, base: Url, directory: &Path, is_registry: bool) -> Result<Host, String> {
    let can = |what: &str| {
        raw.capabilities.as_ref().is_none_or(|capabilities| capabilities.iter().any(|known| known == what))
    };
    let (resolves, pulls) = (can("resolve"), can("pull"));
    let authorities = match raw.ca {
        Files::One(file) => vec![file],
        Files::Several(files) => files,
    };
    let authorities = authorities.iter().map(|file| directory.join(file)).collect();
    let identity = identity(raw.client)?;
    let identity =
        identity.map(|(certificate, key)| (directory.join(certificate), key.map(|key| directory.join(key))));
    let tls = Tls { authorities, identity, is_unchecked: raw.skip_verify };
    Ok(Host { base, resolves, pulls, tls, headers: headers(raw.header)?, is_registry })
}

fn identity(clients: Option<Clients>) -> Result<Option<(PathBuf, Option<PathBuf>)>, String> {
    let mut pairs: Vec<Vec<PathBuf>> = match clients {
        None => return Ok(None),
        Some(Clients::One(file)) => vec![vec![file]],
        Some(Clients::Several(files)) => files.into_iter().map(|file| vec![file]).collect(),
        Some(Clients::Pairs(pairs)) => pairs,
    };
    match (pairs.pop(), pairs.is_empty()) {
        (None, _) => Ok(None),
        (Some(_), false) => Err("more than one client certificate is not supported".to_owned()),
        (Some(pair), true) => {
            let mut files = pair.into_iter().filter(|file| !file.as_os_str().is_empty());
            Ok(files.next().map(|certificate| (certificate, files.next())))
        }
    }
}

fn headers(table: toml::Table) -> Result<Vec<(String, String)>, String> {
    let mut headers = Vec::new();
    for (name, value) in table {
        let values = match value {
            toml::Value::String(value) => vec![value],
            value => {
                Vec::deserialize(value).map_err(|error| format!("header {name}: {}", error.message()))?
            }
        };
        headers.extend(values.into_iter().map(|value| (name.clone(), value)));
    }
    Ok(headers)
}

/// The address of a server, `/v2` added to its path unless that is there or the path is said to be whole.
fn address_of(text: &str, is_whole: bool) -> Result<Url, String> {
    let with_scheme = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    let wrong = || format!("{text:?} is no address of a registry");
    let mut address = Url::parse(&with_scheme).map_err(|_| wrong())?;
    if !matches!(address.scheme(), "http" | "https") || !address.has_host() {
        return Err(wrong());
    }
    let path = address.path().trim_end_matches('/').to_owned();
    let path = if is_whole || path.ends_with("/v2") { path } else { format!("{path}/v2") };
    address.set_path(&path);
    Ok(address)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn usual() -> Url {
        Url::parse("https://registry.example/v2").unwrap()
    }

    fn read_all(text: &str) -> Result<Vec<Host>, String> {
        read(text, Path::new("/certs"), &usual())
    }

    #[test]
    fn mirrors_come_in_the_order_of_the_file_and_the_registry_last() {
        let hosts = read_all(
            r#"
            server = "https://upstream.example"
            ca = "upstream.pem"
            [host."https://z.example:5000"]
            capabilities = ["pull"]
            ca = ["one.pem", "/two.pem"]
            client = [["client.cert", "client.key"]]
            [host."http://a.example/path"]
            capabilities = ["pull", "resolve"]
            [host."http://a.example/path".header]
            x-one = "1"
            x-two = ["2", "3"]
            [host."b.example/whole"]
            override_path = true
            skip_verify = true
            client = "both.pem"
            "#,
        )
        .unwrap();
        let bases: Vec<&str> = hosts.iter().map(|host| host.base.as_str()).collect();
        assert_eq!(
            bases,
            [
                "https://z.example:5000/v2",
                "http://a.example/path/v2",
                "https://b.example/whole",
                "https://upstream.example/v2"
            ]
        );
        assert_eq!(hosts.iter().map(|host| host.resolves).collect::<Vec<_>>(), [false, true, true, true]);
        assert_eq!(
            hosts[0].tls.authorities,
            ["/certs/one.pem", "/two.pem"].map(PathBuf::from),
            "beside the file, unless absolute"
        );
        let pair = (PathBuf::from("/certs/client.cert"), Some(PathBuf::from("/certs/client.key")));
        assert_eq!(hosts[0].tls.identity, Some(pair));
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(hosts[1].headers, [header("x-one", "1"), header("x-two", "2"), header("x-two", "3")]);
        assert!(hosts[2].tls.is_unchecked);
        assert_eq!(hosts[2].tls.identity, Some((PathBuf::from("/certs/both.pem"), None)));
        assert!(hosts[3].is_registry && !hosts[0].is_registry);
        assert_eq!(hosts[3].tls.authorities, [PathBuf::from("/certs/upstream.pem")]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, why) in [
            ("server = 1", "invalid type"),
            ("[host.\"ftp://a\"]", "\"ftp://a\" is no address"),
            ("[host.\"https://a\"]\nclient = [[\"a\"], [\"b\"]]", "more than one client certificate"),
            ("[host.\"https://a\"]\nca = 1", "host \"https://a\": "),
            ("[host.\"https://a\".header]\nx = 1", "header x: "),
            ("nonsense", "expected"),
        ] {
            let message = read_all(text).unwrap_err();
            assert!(message.contains(why), "{message}");
        }
    }

    #[test]
    fn the_directory_of_a_registry_goes_before_that_of_all() {
        let folder = tempfile::tempdir().unwrap();
        let check = |expected: &str| {
            let hosts = hosts(Some(folder.path()), "r.example:5000", &usual()).unwrap();
            assert_eq!(hosts[0].base.as_str(), expected);
        };
        check("https://registry.example/v2");
        for name in ["_default", "r.example:5000", "r.example_5000_"] {
            fs::create_dir(folder.path().join(name)).unwrap();
            let text =
                format!("[host.\"https://{}.example\"]", name.trim_matches('_').replace([':', '.'], "-"));
            fs::write(folder.path().join(name).join("hosts.toml"), text).unwrap();
            check(&format!("https://{}.example/v2", name.trim_matches('_').replace([':', '.'], "-")));
        }
        assert_eq!(hosts(None, "r.example:5000", &usual()).unwrap().len(), 1);
    }

    #[test]
    fn certificates_alone_are_read_as_docker_lays_them_out() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("r.example");
        fs::create_dir(&directory).unwrap();
        for name in ["ca.crt", "client.cert", "client.key"] {
            fs::write(directory.join(name), "").unwrap();
        }
        let hosts = hosts(Some(folder.path()), "r.example", &usual()).unwrap();
        assert_eq!(hosts[0].tls.authorities, [directory.join("ca.crt")]);
        let pair = (directory.join("client.cert"), Some(directory.join("client.key")));
        assert_eq!(hosts[0].tls.identity, Some(pair));
        fs::write(directory.join("hosts.toml"), "x").unwrap();
        let error = super::hosts(Some(folder.path()), "r.example", &usual()).unwrap_err();
        assert!(error.to_string().contains("r.example/hosts.toml: "), "{error}");
    }
}
