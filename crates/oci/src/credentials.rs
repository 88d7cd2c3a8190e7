use coracle_lifecycle::{Credential, Digest, RegistryKey};

use crate::digest::digest_of;
use crate::name::ImageName;

/// The credentials that fit a repository of `host` (`host[:port]`), those for a longer path first, as the kubelet picks them
/// (<https://kubernetes.io/docs/concepts/containers/images/#config-json>). Empty: go there as nobody.
pub(crate) fn fitting(host: &str, repository: &str, credentials: &[Credential]) -> Vec<Credential> {
    let mut fitting: Vec<(RegistryKey<'_>, &Credential)> = credentials
        .iter()
        .map(|credential| (RegistryKey::parse(&credential.registry), credential))
        .filter(|(key, _)| key.fits(host, repository))
        .collect();
    fitting.sort_by_key(|(key, _)| key.rank());
    fitting.into_iter().map(|(_, credential)| credential.clone()).collect()
}

/// What may share a download: the same repository asked with the same credentials, so that nobody gets by sharing
/// what it could not get alone, and no registry can hold up the content of another. Keeps no secret.
pub(crate) fn scope<'a>(name: &'a ImageName, fitting: impl IntoIterator<Item = &'a Credential>) -> Digest {
    let secrets = fitting.into_iter().flat_map(|credential| [&*credential.username, &*credential.password]);
    let parts: Vec<&str> = [name.host(), name.path()].into_iter().chain(secrets).collect();
    // Printed as a list of quoted texts: no two different lists look the same.
    digest_of(format!("{parts:?}").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credential(registry: &str) -> Credential {
        Credential { registry: registry.to_owned(), username: "me".to_owned(), password: "secret".to_owned() }
    }

    fn check(image: &str, registries: &[&str], expected: &[&str]) {
        let credentials: Vec<Credential> = registries.iter().map(|registry| credential(registry)).collect();
        let name = ImageName::parse(image).unwrap();
        let fitting = fitting(name.registry(), name.path(), &credentials);
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
