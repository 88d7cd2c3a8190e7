use std::cmp::Reverse;

/// A key of a docker configuration, `[https://]host[:port][/v1|/v2][/path]`: what credentials are for
/// (<https://kubernetes.io/docs/concepts/containers/images/#config-json>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegistryKey<'a> {
    host: &'a str,
    port: &'a str,
    path: &'a str,
}

impl<'a> RegistryKey<'a> {
    /// Reads a key; any text is one, though it may fit nothing.
    #[must_use]
    pub fn parse(text: &'a str) -> Self {
        let text = text.strip_prefix("https://").or(text.strip_prefix("http://")).unwrap_or(text);
        let (authority, path) = text.split_once('/').unwrap_or((text, ""));
        let (host, port) = split_port(authority);
        Self { host: canonical(host), port, path: without_version(path) }
    }

    /// Whether it is for a repository of a registry (`host[:port]`). A `*` stands for any part of one label of the host.
    #[must_use]
    pub fn fits(&self, registry: &str, repository: &str) -> bool {
        let (host, port) = split_port(registry);
        host_fits(self.host, canonical(host)) && self.port == port && repository.starts_with(self.path)
    }

    /// What keys that fit the same are ordered by: that for the longest path comes first.
    #[must_use]
    pub fn rank(&self) -> impl Ord + use<> {
        Reverse((self.path.len(), !self.host.contains('*')))
    }
}

/// The registry and the repository of an image reference, completed as docker does; neither is checked.
#[must_use]
pub fn repository_of(reference: &str) -> (String, String) {
    let name = reference.split('@').next().unwrap_or_default();
    let (path, last) = name.rsplit_once('/').map_or(("", name), |(path, last)| (path, last));
    let last = last.split(':').next().unwrap_or_default();
    let name = if path.is_empty() { last.to_owned() } else { format!("{path}/{last}") };
    match name.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => {
            (host.to_owned(), rest.to_owned())
        }
        Some(_) => ("docker.io".to_owned(), name),
        None => ("docker.io".to_owned(), format!("library/{name}")),
    }
}

/// The whole of an image reference, with registry, repository, and tag or digest, as an image store keeps it.
#[must_use]
pub fn full_reference(reference: &str) -> String {
    let (registry, repository) = repository_of(reference);
    if let Some((_, digest)) = reference.split_once('@') {
        return format!("{registry}/{repository}@{digest}");
    }
    let last = reference.rsplit('/').next().unwrap_or_default();
    let tag = last.split_once(':').map_or("latest", |(_, tag)| tag);
    format!("{registry}/{repository}:{tag}")
}

fn split_port(authority: &str) -> (&str, &str) {
    authority.rsplit_once(':').unwrap_or((authority, ""))
}

fn canonical(host: &str) -> &str {
    if matches!(host, "index.docker.io" | "registry-1.docker.io") { "docker.io" } else { host }
}

fn without_version(path: &str) -> &str {
    let path = path.trim_end_matches('/');
    match path.split_once('/') {
        Some(("v1" | "v2", rest)) => rest,
        None if matches!(path, "v1" | "v2") => "",
        _ => path,
    }
}

/// Label by label; a `*` in the pattern stands for any part of one label.
fn host_fits(pattern: &str, host: &str) -> bool {
    !pattern.is_empty()
        && pattern.split('.').count() == host.split('.').count()
        && pattern.split('.').zip(host.split('.')).all(|(pattern, label)| label_fits(pattern, label))
}

fn label_fits(pattern: &str, label: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(last) = pieces.next_back() else {
        return pattern.eq_ignore_ascii_case(label);
    };
    let Some(between) = label.strip_prefix(first).and_then(|rest| rest.strip_suffix(last)) else {
        return false;
    };
    // Each piece where it first fits: linear, however many stars a pattern has.
    pieces.try_fold(between, |rest, piece| Some(rest.split_once(piece)?.1)).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_completed_as_docker_does() {
        for (reference, registry, repository) in [
            ("hello", "docker.io", "library/hello"),
            ("hello:1", "docker.io", "library/hello"),
            ("me/hello@sha256:00", "docker.io", "me/hello"),
            ("localhost/a:1", "localhost", "a"),
            ("r.example:5000/a/b:1@sha256:00", "r.example:5000", "a/b"),
        ] {
            assert_eq!(repository_of(reference), (registry.to_owned(), repository.to_owned()));
        }
        assert_eq!(full_reference("hello"), "docker.io/library/hello:latest");
        assert_eq!(full_reference("r.example:5000/a:1"), "r.example:5000/a:1");
        assert_eq!(full_reference("r.example/a:1@sha256:00"), "r.example/a@sha256:00");
    }

    #[test]
    fn a_key_fits_by_host_port_and_path() {
        let fits = |key: &str| RegistryKey::parse(key).fits("r.example:5000", "team/app");
        assert!(["r.example:5000", "https://*.example:5000/v2/team"].into_iter().all(fits));
        assert!(!["r.example", "r.example:5000/other", "*:5000", ""].into_iter().any(fits));
    }
}
