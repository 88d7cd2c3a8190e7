use clap::Parser;

use super::*;
use crate::flags::{Arguments, Command};

fn surroundings() -> Surroundings {
    Surroundings {
        hostname: "Host.Example".to_owned(),
        kubeconfig: Some("/etc/k".into()),
        ..Surroundings::default()
    }
}

fn parse(arguments: &[&str]) -> Result<Settings, UsageError> {
    let words = ["coracle", "node"].iter().chain(arguments);
    let Command::Node(flags) = Arguments::try_parse_from(words).unwrap().command else {
        panic!("{arguments:?}");
    };
    Settings::check(*flags, &surroundings())
}

fn usual() -> Settings {
    Settings {
        kubeconfig: "/etc/k".into(),
        name: "host.example".to_owned(),
        addresses: Vec::new(),
        own_addresses: true,
        port: 10250,
        root_dir: "/var/lib/coracle".into(),
        labels: BTreeMap::new(),
        taints: None,
        max_pods: None,
        thresholds: Thresholds::default(),
        serving: None,
        client_ca: None,
        insecure_registries: Vec::new(),
        images: ImageSettings::default(),
        allowed_host_paths: Vec::new(),
        cluster_dns: Vec::new(),
        cluster_domain: "cluster.local".to_owned(),
        shutdown_grace: ShutdownGrace::default(),
    }
}

#[track_caller]
fn check(arguments: &[&str], expected: Settings) {
    assert_eq!(parse(arguments), Ok(expected), "{arguments:?}");
}

#[track_caller]
fn refused(arguments: &[&str], line: &str) {
    assert_eq!(parse(arguments).unwrap_err().to_string(), line, "{arguments:?}");
}

#[test]
fn flags_become_settings() {
    check(&[], usual());
    check(&["--kubeconfig", "/k"], Settings { kubeconfig: "/k".into(), ..usual() });
    check(&["--hostname-override", "n1"], Settings { name: "n1".into(), ..usual() });
    let both = vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
    check(&["--node-ip", "192.0.2.1,2001:db8::1"], Settings { addresses: both, ..usual() });
    check(&["--pod-network", "auto"], usual());
    check(&["--pod-network", "node"], Settings { own_addresses: false, ..usual() });
    check(&["--port", "1"], Settings { port: 1, ..usual() });
    check(&["--root-dir", "/x"], Settings { root_dir: "/x".into(), ..usual() });
    check(&["--node-labels", "a=b"], Settings { labels: [("a".into(), "b".into())].into(), ..usual() });
    check(&["--register-with-taints", ""], Settings { taints: Some(Vec::new()), ..usual() });
    let taints = Some(parse_taints("a=b:NoSchedule").unwrap());
    check(&["--register-with-taints", "a=b:NoSchedule"], Settings { taints, ..usual() });
    check(&["--insecure-registry", ""], usual());
    check(&["--max-pods", "0"], Settings { max_pods: Some(0), ..usual() });
    let thresholds = parse_thresholds("nodefs.available<1Gi").unwrap();
    check(&["--eviction-hard", "nodefs.available<1Gi"], Settings { thresholds, ..usual() });
    check(&["--eviction-hard", ""], usual());
    let serving = Some(("/c".into(), "/p".into()));
    check(&["--tls-cert-file", "/c", "--tls-private-key-file", "/p"], Settings { serving, ..usual() });
    check(&["--client-ca-file", "/ca"], Settings { client_ca: Some("/ca".into()), ..usual() });
    let registries = vec!["localhost:5000".into(), "[::1]:5000".into(), "registry.example".into()];
    check(
        &["--insecure-registry", "localhost:5000", "--insecure-registry", "[::1]:5000,registry.example"],
        Settings { insecure_registries: registries, ..usual() },
    );
}

#[test]
fn the_time_that_pods_have_when_the_machine_goes_down() {
    let (total, critical) = ("--shutdown-grace-period", "--shutdown-grace-period-critical-pods");
    let seconds = Duration::from_secs;
    let grace = ShutdownGrace::of(seconds(90), seconds(10));
    check(&[total, "1m30s", critical, "10s"], Settings { shutdown_grace: grace, ..usual() });
    check(&[total, "0"], usual());
    check(&[total, "", critical, "0s"], usual());
    for bad in ["soon", "-5s", "30"] {
        let line = format!("{total}: {bad:?} is not a duration such as 30s or 1m30s");
        refused(&[&format!("{total}={bad}")], &line);
    }
    let line = format!("{critical}: is a part of --shutdown-grace-period and cannot be longer");
    refused(&[total, "5s", critical, "6s"], &line);
}

#[test]
fn the_time_that_pods_of_each_priority_have() {
    let flag = "--shutdown-grace-period-by-pod-priority";
    let seconds = Duration::from_secs;
    let grace = ShutdownGrace::by_priority([(-5, seconds(90)), (0, seconds(0)), (100_000, seconds(10))]);
    check(&[flag, "100000=10s,-5=1m30s, 0=0"], Settings { shutdown_grace: grace, ..usual() });
    check(&[flag, ""], usual());
    for bad in ["5", "x=5s", "=5s", "99999999999=5s"] {
        refused(&[flag, bad], &format!("{flag}: {bad:?} is not of the form PRIORITY=DURATION"));
    }
    refused(&[flag, "1=soon"], &format!("{flag}: \"soon\" is not a duration such as 30s or 1m30s"));
    refused(&[flag, "1=5s,1=6s"], &format!("{flag}: names 1 twice"));
    let both = [flag, "1=5s", "--shutdown-grace-period", "5s"];
    refused(&both, &format!("{flag}: says the same as --shutdown-grace-period"));
}

#[test]
fn a_bad_value_is_named_with_its_flag() {
    refused(&["--pod-network", "host"], "--pod-network: \"host\" is neither auto nor node");
    refused(&["--port", "0"], r#"--port: "0" is not a port between 1 and 65535"#);
    refused(&["--port", "70000"], r#"--port: "70000" is not a port between 1 and 65535"#);
    refused(&["--node-ip", "here"], r#"--node-ip: "here" is not an IP address"#);
    refused(&["--node-ip", "0.0.0.0"], "--node-ip: 0.0.0.0 cannot be a node's address");
    refused(&["--node-ip", "192.0.2.1,192.0.2.2"], "--node-ip: there can be one IPv4 and one IPv6 address");
    refused(&["--max-pods", "-1"], r#"--max-pods: "-1" is not a number of pods"#);
    refused(
        &["--eviction-hard", "nodefs"],
        r#"--eviction-hard: "nodefs" is not of the form signal<quantity"#,
    );
    refused(&["--tls-cert-file", "/c"], "--tls-cert-file: needs --tls-private-key-file");
    refused(&["--tls-private-key-file", "/p"], "--tls-private-key-file: needs --tls-cert-file");
    refused(&["--node-labels", "a"], r#"--node-labels: "a" is not of the form key=value"#);
    refused(
        &["--register-with-taints", "a"],
        r#"--register-with-taints: "a" is not of the form key=value:Effect"#,
    );
    for registry in ["http://x", "x:port", "x:", "x:1:2", "x/y", ":5000", "[::1]5000", "[x]:1"] {
        let line = format!("--insecure-registry: {registry:?} is not of the form HOST[:PORT]");
        refused(&["--insecure-registry", registry], &line);
    }
    let name =
        "--hostname-override: \"N 1\" is not a node name: lower-case letters, digits, '-' and '.', as in DNS";
    refused(&["--hostname-override", "N 1"], name);
}

#[test]
fn what_is_missing_is_named() {
    let bare = Surroundings { hostname: "a_b".into(), kubeconfig: None, ..Surroundings::default() };
    let error = Settings::check(NodeFlags::default(), &bare).unwrap_err();
    assert_eq!(error.to_string(), "--kubeconfig: is required when KUBECONFIG is not set");
    let flags = NodeFlags { kubeconfig: Some("/k".into()), ..NodeFlags::default() };
    let error = Settings::check(flags, &bare).unwrap_err();
    assert_eq!(error.to_string(), r#"--hostname-override: the host name "a_b" is not a node name"#);
}

#[test]
fn paths_and_names_for_pods() {
    let allowed = vec!["/srv/data".into(), "/mnt".into()];
    let paths = ["--allowed-host-path", "/srv/data", "--allowed-host-path", "/mnt"];
    check(&paths, Settings { allowed_host_paths: allowed, ..usual() });
    let line = "--allowed-host-path: srv/.. is not an absolute path without '..'";
    refused(&["--allowed-host-path", "srv/.."], line);
    let servers = vec!["10.96.0.10".parse().unwrap(), "fd00::a".parse().unwrap()];
    check(&["--cluster-dns", "10.96.0.10, fd00::a"], Settings { cluster_dns: servers, ..usual() });
    refused(&["--cluster-dns", "dns"], "--cluster-dns: \"dns\" is not an IP address");
    let domain = "example.org".to_owned();
    check(&["--cluster-domain", "example.org"], Settings { cluster_domain: domain, ..usual() });
    refused(&["--cluster-domain", "-"], "--cluster-domain: \"-\" is not a domain");
}
