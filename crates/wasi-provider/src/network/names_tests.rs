use std::fs;
use std::net::UdpSocket;
use std::thread;

use coracle_lifecycle::{Network, PodIdentity, PodUid};

use super::*;

/// Answers `count` questions of one type: `name` has this address, no other name exists. Returns what was asked.
fn serve(address: &str, count: usize, name: &'static str) -> (u16, thread::JoinHandle<Vec<String>>) {
    let socket = UdpSocket::bind((address, 0)).unwrap();
    let port = socket.local_addr().unwrap().port();
    let server = thread::spawn(move || {
        let mut asked = Vec::new();
        let mut buffer = [0; 512];
        while asked.len() < count {
            let (length, peer) = socket.recv_from(&mut buffer).unwrap();
            let (question, answer) = reply(&buffer[..length], name);
            socket.send_to(&answer, peer).unwrap();
            asked.push(format!("{question} from {}", peer.ip()));
        }
        asked
    });
    (port, server)
}

/// The name that a query asks for, and the answer to it: 192.0.2.53 for an A of `known`.
fn reply(query: &[u8], known: &str) -> (String, Vec<u8>) {
    let (mut labels, mut at) = (Vec::new(), 12);
    while query[at] != 0 {
        let end = at + 1 + usize::from(query[at]);
        labels.push(String::from_utf8(query[at + 1..end].to_vec()).unwrap());
        at = end;
    }
    let (name, is_v4, end) = (labels.join("."), query[at + 2] == 1, at + 5);
    let is_known = name.eq_ignore_ascii_case(known);
    let mut answer = query[..end].to_vec();
    answer[2] = 0x81;
    answer[3] = if is_known { 0x80 } else { 0x83 };
    answer[6..12].copy_from_slice(&[0, u8::from(is_known && is_v4), 0, 0, 0, 0]);
    if is_known && is_v4 {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 53]);
    }
    let kind = if is_v4 { "A" } else { "AAAA" };
    (format!("{kind} {name}"), answer)
}

fn reach() -> Reach {
    let identity = PodIdentity { namespace: "n".into(), name: "p".into(), uid: PodUid::new("u") };
    Reach::of(&identity, &Network { host: true, ..Network::default() })
}

fn dns(server: &str, searches: &[&str], options: &[&str]) -> Dns {
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    Dns { servers: vec![server.parse().unwrap()], searches: owned(searches), options: owned(options) }
}

#[tokio::test]
async fn names_are_searched_as_the_pods_settings_say() {
    let root = tempfile::tempdir().unwrap();
    let found = ["192.0.2.53".parse::<IpAddr>().unwrap()];
    let dns = dns("127.0.0.1", &["shop.svc.cluster.local", "svc.cluster.local"], &["ndots:5"]);
    for (name, questions) in [("web.shop", 4), ("web", 2)] {
        let (port, server) = serve("127.0.0.1", questions, "web.shop.svc.cluster.local");
        let names = Names::on_port(&dns, &reach(), root.path(), port);
        assert_eq!(names.look_up(name).await.unwrap(), found, "{name}");
        let asked = server.join().unwrap();
        assert!(asked.contains(&"A web.shop.svc.cluster.local from 127.0.0.1".to_owned()), "{asked:?}");
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_a_passing_failure_and_none_a_lasting_one() {
    let root = tempfile::tempdir().unwrap();
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let options = ["timeout:1", "attempts:1"];
    let names = Names::on_port(
        &dns("127.0.0.1", &[], &options),
        &reach(),
        root.path(),
        silent.local_addr().unwrap().port(),
    );
    assert_eq!(names.look_up("web.example.").await.unwrap_err(), LookupError::Temporary);
    let names = Names::new(&Dns::default(), &reach(), root.path());
    assert_eq!(names.look_up("web.example").await.unwrap_err(), LookupError::Permanent);
}

#[tokio::test]
async fn the_hosts_file_of_the_container_comes_first() {
    let root = tempfile::tempdir().unwrap();
    let names = Names::new(&Dns::default(), &reach(), root.path());
    let look_up = async |name| names.look_up(name).await;
    let list = |text: &str| vec![text.parse::<IpAddr>().unwrap()];
    assert_eq!(look_up("localhost").await.unwrap().len(), 2);
    fs::create_dir(root.path().join("etc")).unwrap();
    let text = "# a comment\n127.0.0.1\tlocalhost\n10.1.2.3\tweb.example web # other\nbroken web\n";
    fs::write(root.path().join("etc/hosts"), text).unwrap();
    assert_eq!(look_up("WEB").await, Ok(list("10.1.2.3")));
    assert_eq!(look_up("web.example.").await, Ok(list("10.1.2.3")));
    assert_eq!(look_up("localhost").await, Ok(list("127.0.0.1")));
    assert_eq!(look_up("other").await, Err(LookupError::Permanent));
}

#[tokio::test]
async fn a_hosts_file_that_is_none_is_not_read() {
    let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(outside.path().join("hosts"), "10.1.2.3 secret\n").unwrap();
    let etc = root.path().join("etc");
    fs::create_dir(&etc).unwrap();
    let names = Names::new(&Dns::default(), &reach(), root.path());
    std::os::unix::fs::symlink(outside.path().join("hosts"), etc.join("hosts")).unwrap();
    assert_eq!(names.look_up("secret").await, Err(LookupError::Permanent));
    fs::remove_file(etc.join("hosts")).unwrap();
    rustix::fs::mknodat(CWD, etc.join("hosts"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    assert_eq!(names.look_up("secret").await, Err(LookupError::Permanent));
}

#[tokio::test]
async fn addresses_are_their_own_names_and_nonsense_is_none() {
    let names = Names::new(&Dns::default(), &reach(), Path::new("/nowhere"));
    for text in ["192.0.2.1", "2001:db8::1", "[2001:db8::1]"] {
        let bare = text.trim_matches(['[', ']']);
        assert_eq!(names.look_up(text).await, Ok(vec![bare.parse().unwrap()]));
    }
    let long = "a".repeat(300);
    for text in ["", ".", "a..b", long.as_str()] {
        assert_eq!(names.look_up(text).await, Err(LookupError::Invalid), "{text:?}");
    }
}

#[test]
fn options_have_the_bounds_of_resolv_conf() {
    let of = |texts: &[&str]| options(&dns("192.0.2.1", &[], texts));
    assert_eq!(of(&["ndots:5"]).ndots, 5);
    assert_eq!(of(&["ndots:99"]).ndots, 15);
    assert_eq!(of(&["ndots:x"]).ndots, 1);
    assert_eq!(of(&["timeout:99"]).timeout, Duration::from_secs(30));
    assert_eq!(of(&["attempts:99"]).attempts, 5);
    assert_eq!(of(&["rotate"]).server_ordering_strategy, ServerOrderingStrategy::RoundRobin);
    assert_eq!(of(&[]).server_ordering_strategy, ServerOrderingStrategy::UserProvidedOrder);
}
