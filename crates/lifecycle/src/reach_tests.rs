use super::*;
use crate::PodUid;

fn pod(uid: &str) -> PodIdentity {
    PodIdentity { namespace: "n".into(), name: "p".into(), uid: PodUid::new(uid) }
}

fn network(addresses: &[&str], shared: bool) -> Network {
    let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    Network { shared, addresses, ..Network::default() }
}

fn reach(addresses: &[&str]) -> Reach {
    Reach::of(&pod("u"), &network(addresses, false))
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn a_wildcard_is_the_pods_address_and_loopback_its_own() {
    let pod = reach(&["10.244.16.7", "fd00::7"]);
    for (wanted, bound) in [
        ("0.0.0.0", Some("10.244.16.7")),
        ("::", Some("fd00::7")),
        ("127.0.0.1", Some("127.244.16.7")),
        ("127.8.0.1", Some("127.244.16.7")),
        ("::1", Some("fd63:6f72:6163:6c65::7")),
        ("10.244.16.7", Some("10.244.16.7")),
        ("10.244.16.8", None),
        ("192.0.2.1", None),
        ("fd63:6f72:6163:6c65::8", None),
    ] {
        assert_eq!(pod.bind(ip(wanted)), bound.map(ip), "{wanted}");
        assert!(pod.bind(ip(wanted)).is_none_or(|bound| pod.owns(bound)), "{wanted}");
    }
}

#[test]
fn a_pod_without_an_address_of_a_family_has_its_loopback() {
    let pod = reach(&["10.244.16.7"]);
    assert_eq!(pod.bind(ip("::")), Some(ip("fd63:6f72:6163:6c65::af4:1007")));
    assert_eq!(pod.destination(ip("2001:db8::1")), Destination::Unreachable);
}

#[test]
fn connections_leave_from_the_pods_address_and_reach_no_other_pods_loopback() {
    let pod = reach(&["10.244.16.7"]);
    let source = Some(ip("10.244.16.7"));
    for (wanted, leads) in [
        ("192.0.2.1", Destination::Address(ip("192.0.2.1"), source)),
        ("10.244.16.8", Destination::Address(ip("10.244.16.8"), source)),
        ("127.0.0.1", Destination::Itself { loopback: ip("127.244.16.7"), address: source }),
        // Another pod's loopback by its real name is only one more name of one's own.
        ("127.244.16.8", Destination::Itself { loopback: ip("127.244.16.7"), address: source }),
        ("fd63:6f72:6163:6c65::af4:1008", Destination::Unreachable),
    ] {
        assert_eq!(pod.destination(ip(wanted)), leads, "{wanted}");
    }
    for (actual, reached) in [
        ("127.244.16.7", true),
        ("127.244.16.8", false),
        ("127.0.0.1", false),
        ("::1", false),
        ("fd63:6f72:6163:6c65::af4:1008", false),
        ("10.0.0.1", true),
    ] {
        assert_eq!(pod.reaches(ip(actual)), reached, "{actual}");
    }
}

#[test]
fn a_guest_knows_its_loopback_by_the_usual_name() {
    let pod = reach(&["10.244.16.7"]);
    assert_eq!(pod.shown(ip("127.244.16.7")), ip("127.0.0.1"));
    assert_eq!(pod.shown(ip("fd63:6f72:6163:6c65::af4:1007")), ip("::1"));
    assert_eq!(pod.shown(ip("10.244.16.7")), ip("10.244.16.7"));
}

#[test]
fn pods_that_share_the_nodes_address_have_a_loopback_each() {
    let [one, other] = ["u1", "u2"].map(|uid| Reach::of(&pod(uid), &network(&["192.0.2.7"], true)));
    let loopback = |reach: &Reach| reach.bind(ip("127.0.0.1")).unwrap();
    assert_ne!(loopback(&one), loopback(&other));
    assert!(loopback(&one).to_string().starts_with("127."));
    assert_ne!(loopback(&one), ip("127.0.0.1"));
    assert_eq!(one.bind(ip("::1")), None);
    assert_eq!(one.destination(ip("::1")), Destination::Unreachable);
    assert_eq!(one.bind(ip("0.0.0.0")), Some(ip("192.0.2.7")));
}

#[test]
fn in_the_nodes_network_everything_is_what_it_is() {
    let network = Network { host: true, ..network(&["192.0.2.7"], false) };
    let host = Reach::of(&pod("u"), &network);
    for address in ["0.0.0.0", "127.0.0.1", "::", "::1", "192.0.2.7", "198.51.100.1"] {
        let address = ip(address);
        assert_eq!(host.bind(address), Some(address));
        assert_eq!(host.destination(address), Destination::Address(address, None));
        assert_eq!(host.shown(address), address);
        assert!(host.owns(address) && host.reaches(address));
    }
}
