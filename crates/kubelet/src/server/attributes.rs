use hyper::Method;

/// What a request wants to do, in the words of authorization: a verb on `nodes/<sub-resource>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attributes {
    /// The verb; empty for methods the API has no word for.
    pub(super) verb: &'static str,
    /// The sub-resources of the Node, any one of which suffices, in the order to ask for them.
    pub(super) subresources: &'static [&'static str],
}

/// Sub-resources by the path that they, and what lies under it, stand for (KEP 2862).
const PATHS: [(&str, &[&str]); 10] = [
    ("/stats", &["stats"]),
    ("/metrics", &["metrics"]),
    ("/logs", &["log"]),
    ("/checkpoint", &["checkpoint"]),
    ("/statusz", &["statusz"]),
    ("/pods", &["pods", "proxy"]),
    ("/runningpods", &["pods", "proxy"]),
    ("/healthz", &["healthz", "proxy"]),
    ("/configz", &["configz", "proxy"]),
    ("/flagz", &["configz"]),
];

impl Attributes {
    /// The attributes of a request.
    pub(super) fn of(method: &Method, path: &str) -> Self {
        let lies_under = |parent: &str| {
            path.strip_prefix(parent).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let known = PATHS.iter().find(|(parent, _)| lies_under(parent));
        Self { verb: verb(method), subresources: known.map_or(&["proxy"], |(_, names)| names) }
    }
}

fn verb(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::GET => "get",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, expected: &[&str]) {
        assert_eq!(Attributes::of(&Method::GET, path).subresources, expected, "{path}");
    }

    #[test]
    fn paths_stand_for_subresources() {
        check("/stats", &["stats"]);
        check("/stats/summary", &["stats"]);
        check("/metrics/resource", &["metrics"]);
        check("/logs/", &["log"]);
        check("/checkpoint/n/p/c", &["checkpoint"]);
        check("/statusz", &["statusz"]);
        check("/pods", &["pods", "proxy"]);
        check("/runningpods/", &["pods", "proxy"]);
        check("/healthz", &["healthz", "proxy"]);
        check("/healthz/ping", &["healthz", "proxy"]);
        check("/configz", &["configz", "proxy"]);
        check("/flagz", &["configz"]);
        for path in ["/containerLogs/n/p/c", "/exec/n/p/c", "/healthzz", "/", "", "//healthz", "/unknown"] {
            check(path, &["proxy"]);
        }
    }

    #[test]
    fn methods_stand_for_verbs() {
        let verbs = [
            (Method::POST, "create"),
            (Method::GET, "get"),
            (Method::PUT, "update"),
            (Method::PATCH, "patch"),
            (Method::DELETE, "delete"),
            (Method::OPTIONS, ""),
        ];
        for (method, verb) in verbs {
            assert_eq!(Attributes::of(&method, "/pods").verb, verb);
        }
    }
}
