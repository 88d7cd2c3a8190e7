use coracle_lifecycle::{Credential, Digest};

use crate::digest::digest_of;
use crate::name::ImageName;

/// The credentials that fit `name`, those for a longer path first, as the kubelet picks them
/// (<https://kubernetes.io/docs/concepts/containers/images/#config-json>). Empty: go there as nobody.
pub(crate) fn fitting(name: &ImageName, credentials: &[Credential]) -> Vec<Credential> {
    let mut fitting: Vec<(Key<'_>, &Credential)> = credentials
        .iter()
        .map(|credential| (Key::parse(&credential.registry), credential))
        .filter(|(key, _)| key.fits(name.registry(), name.path()))
        .collect();
    fitting.sort_by_key(|(key, _)| std::cmp::Reverse((key.path.len(), !key.host.contains('*'))));
    fitting.into_iter().map(|(_, credential)| credential.clone()).collect()
}

/// What may share a download: the same repository asked with the same credentials, so that nobody gets by sharing
/// what it could not get alone, and no registry can hold up the content of another. Keeps no secret.
pub(crate) fn scope(name: &ImageName, fitting: &[Credential]) -> Digest {
    let secrets = fitting.iter().flat_map(|credential| [&*credential.username, &*credential.password]);
    let parts: Vec<&str> = [name.host(), name.path()].into_iter().chain(secrets).collect();
    // Printed as a list of quoted texts: no two different lists look the same.
    digest_of(format!("{parts:?}").as_bytes())
}

/// A key of a docker configuration: `[https://]host[:port][/v1|/v2][/path]`.
struct Key<'a> {
    host: &'a str,
    port: &'a str,
    path: &'a str,
}

impl<'a> Key<'a> {
    fn parse(text: &'a str) -> Self {
        let text = text.strip_prefix("https://").or(text.strip_prefix("http://")).unwrap_or(text);
        let (authority, path) = text.split_once('/').unwrap_or((text, ""));
        let (host, port) = split_port(authority);
        Self { host: canonical(host), port, path: without_version(path) }
    }

    fn fits(&self, registry: &str, repository: &str) -> bool {
        let (host, port) = split_port(registry);
        host_fits(self.host, canonical(host)) && self.port == port && repository.starts_with(self.path)
    }
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

    fn credential(registry: &str) -> Credential {
        Credential { registry: registry.to_owned(), username: "me".to_owned(), password: "secret".to_owned() }
    }

    fn check(image: &str, registries: &[&str], expected: &[&str]) {
        let credentials: Vec<Credential> = registries.iter().map(|registry| credential(registry)).collect();
        let fitting = fitting(&ImageName::parse(image).unwrap(), &credentials);
        let registries: Vec<&str> = fitting.iter().map(|credential| &*credential.registry).collect();
        assert_eq!(registries, expected, "{image}");
    }

    #[test]
    fn a_key_fits_by_host_port_and_path() {
        for key in
            ["r.example", "https://r.example", "https://r.example/v1/", "r.example/v2/", "R.example/team"]
        {
            check("r.example/team/app:1", &[key], &[key]);
        }
        for key in [
            "",
            "example",
            "r.example:5000",
            "r.example/other",
            "x.r.example",
            "https://",
            "*",
            "*.*.example",
        ] {
            check("r.example/team/app:1", &[key], &[]);
        }
        check(
            "r.example:5000/app",
            &["r.example", "r.example:5000", "http://r.example:5000"],
            &["r.example:5000", "http://r.example:5000"],
        );
    }

    #[test]
    fn the_hub_has_several_names() {
        for key in ["docker.io", "index.docker.io", "https://index.docker.io/v1/", "registry-1.docker.io"] {
            check("hello", &[key], &[key]);
            check("index.docker.io/me/hello", &[key], &[key]);
        }
        check("hello", &["docker.io/me", "docker.io/library"], &["docker.io/library"]);
    }

    #[test]
    fn the_more_specific_key_comes_first_and_equals_keep_their_order() {
        check(
            "r.example/a/b/c",
            &["*.example", "r.example", "r.example/a", "r.example/a/b", "https://r.example/a"],
            &["r.example/a/b", "r.example/a", "https://r.example/a", "r.example", "*.example"],
        );
    }

    #[test]
    fn a_star_stands_for_part_of_one_label() {
        check(
            "12.dkr.ecr.eu-1.amazonaws.com/a",
            &["*.dkr.ecr.*.amazonaws.com"],
            &["*.dkr.ecr.*.amazonaws.com"],
        );
        check("abc.example/a", &["a*c.example", "a*d.example", "*"], &["a*c.example"]);
    }

    #[test]
    fn a_scope_tells_repositories_and_credentials_apart_and_shows_none() {
        let name = ImageName::parse("r.example/a:1").unwrap();
        let mine = [credential("r.example")];
        let same_repository = ImageName::parse("r.example/a:2").unwrap();
        assert_eq!(scope(&name, &mine), scope(&same_repository, &mine));
        assert_ne!(scope(&name, &mine), scope(&name, &[]));
        assert_ne!(scope(&name, &mine), scope(&ImageName::parse("r.example/b").unwrap(), &mine));
    }
}
