//! What a pod's annotations say of the requests that it sends: Krustlet's, so that its manifests run unchanged.

use std::collections::BTreeMap;

use http::Uri;

use crate::http::Malformed;

/// A JSON array of URLs: only their hosts may be asked. Without it every host may, as from any other pod.
const DOMAINS: &str = "alpha.wasi.krustlet.dev/allowed-domains";
/// How many requests of a container may be under way.
const REQUESTS: &str = "alpha.wasi.krustlet.dev/max-concurrent-requests";
/// In the place of a URL: every host may be asked.
const EVERY_HOST: &str = "insecure:allow-all";
/// What a container may have under way that says nothing.
const MOST_REQUESTS: usize = 1_000;

/// Whom the containers of a pod may ask, and how many at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    /// In lower case; every host when `None`.
    hosts: Option<Vec<String>>,
    pub(super) requests: usize,
}

impl Rules {
    /// The rules that these annotations make.
    ///
    /// # Errors
    /// One of them says nothing that can be done.
    pub(crate) fn of(annotations: &BTreeMap<String, String>) -> Result<Self, Malformed> {
        let read = |name: &str| annotations.get(name);
        let malformed = |name: &str| {
            let annotation = name.to_owned();
            move |why| Malformed { annotation, why }
        };
        let hosts = read(DOMAINS).map(|value| hosts(value)).transpose().map_err(malformed(DOMAINS))?;
        let requests = read(REQUESTS).map(|value| number(value)).transpose().map_err(malformed(REQUESTS))?;
        Ok(Self { hosts: hosts.flatten(), requests: requests.unwrap_or(MOST_REQUESTS) })
    }

    /// Whether this host may be asked.
    pub(super) fn allow(&self, host: &str) -> bool {
        self.hosts.as_ref().is_none_or(|hosts| hosts.iter().any(|one| one.eq_ignore_ascii_case(host)))
    }
}

fn hosts(value: &str) -> Result<Option<Vec<String>>, String> {
    let urls: Vec<String> = serde_json::from_str(value)
        .map_err(|_| format!("{value:?} is no JSON array of URLs, such as [\"https://api.example\"]"))?;
    if urls.iter().any(|url| url == EVERY_HOST) {
        return Ok(None);
    }
    urls.iter().map(|url| host(url)).collect::<Result<_, _>>().map(Some)
}

fn host(url: &str) -> Result<String, String> {
    let host = url.parse::<Uri>().ok().and_then(|url| url.host().map(str::to_ascii_lowercase));
    let host = host.filter(|host| !host.is_empty() && !host.contains('*'));
    let host = host.ok_or_else(|| format!("{url:?} is no URL with a host"))?;
    Ok(host.trim_start_matches('[').trim_end_matches(']').to_owned())
}

fn number(value: &str) -> Result<usize, String> {
    let number = value.parse().ok().filter(|number| (1..=MOST_REQUESTS).contains(number));
    number.ok_or_else(|| format!("{value:?} is no number from 1 to {MOST_REQUESTS}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(annotations: &[(&str, &str)]) -> Result<Rules, String> {
        let annotations = annotations.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Rules::of(&annotations.collect()).map_err(|malformed| malformed.to_string())
    }

    #[test]
    fn a_pod_that_says_nothing_may_ask_everybody() {
        let rules = of(&[]).unwrap();
        assert!(rules.allow("example.com"));
        assert_eq!(rules.requests, MOST_REQUESTS);
        assert!(of(&[(DOMAINS, r#"["insecure:allow-all"]"#)]).unwrap().allow("example.com"));
    }

    #[test]
    fn only_hosts_that_are_listed_may_be_asked() {
        let list = r#"["https://Api.Example:8443/v1", "http://[fd00::1]", "plain.example"]"#;
        let rules = of(&[(DOMAINS, list), (REQUESTS, "42")]).unwrap();
        assert_eq!(rules.requests, 42);
        for host in ["api.example", "API.EXAMPLE", "fd00::1", "plain.example"] {
            assert!(rules.allow(host), "{host}");
        }
        for host in ["example", "sub.api.example", "api.example.", ""] {
            assert!(!rules.allow(host), "{host}");
        }
        assert!(!of(&[(DOMAINS, "[]")]).unwrap().allow("example.com"));
    }

    #[test]
    fn what_means_nothing_is_refused_by_name() {
        for (name, value) in [
            (DOMAINS, "https://api.example"),
            (DOMAINS, "[1]"),
            (DOMAINS, r#"["/path"]"#),
            (DOMAINS, r#"["*.example"]"#),
            (REQUESTS, "0"),
            (REQUESTS, "many"),
            (REQUESTS, "-1"),
        ] {
            let refused = of(&[(name, value)]).unwrap_err();
            assert!(refused.starts_with(&format!("metadata.annotations[{name}]: ")), "{refused}");
        }
    }
}
