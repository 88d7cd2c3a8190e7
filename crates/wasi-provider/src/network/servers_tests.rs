use std::sync::Arc;

use coracle_lifecycle::{Network, PodIdentity, PodUid};
use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME};
use hickory_resolver::proto::rr::{RData, Record};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

use super::*;

/// What a server does with a question.
enum Reply {
    Say(ResponseCode, Vec<RData>),
    /// With names of their own: the aliases that lead there.
    Chain(Vec<(&'static str, RData)>),
    /// That there is more than a datagram takes.
    Cut,
    Nothing,
    Bytes(Vec<u8>),
    /// An answer to another question.
    Another,
}

/// A question: how it came, for what, and for which name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Question {
    by: &'static str,
    id: u16,
    kind: RecordType,
    name: String,
}

type Rule = fn(&Question) -> Reply;

/// A name server of a test.
struct Server {
    address: IpAddr,
    port: u16,
    asked: Arc<Mutex<Vec<Question>>>,
    _tasks: JoinSet<()>,
}

impl Server {
    /// One on a port that is free, or on the port of another.
    async fn start(address: &str, port: u16, rule: Rule) -> Self {
        let address: IpAddr = address.parse().unwrap();
        let tcp = TcpListener::bind((address, port)).await.unwrap();
        let port = tcp.local_addr().unwrap().port();
        let udp = UdpSocket::bind((address, port)).await.unwrap();
        let asked = Arc::<Mutex<Vec<Question>>>::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(by_udp(udp, rule, Arc::clone(&asked)));
        tasks.spawn(by_tcp(tcp, rule, Arc::clone(&asked)));
        Self { address, port, asked, _tasks: tasks }
    }

    /// The names of whose IPv4 addresses it was asked, as they came.
    fn names(&self) -> Vec<String> {
        let asked = self.asked.lock();
        asked.iter().filter(|asked| asked.kind == RecordType::A).map(|asked| asked.name.clone()).collect()
    }
}

async fn by_udp(socket: UdpSocket, rule: Rule, asked: Arc<Mutex<Vec<Question>>>) {
    let mut buffer = [0; 2048];
    loop {
        let (length, peer) = socket.recv_from(&mut buffer).await.unwrap();
        if let Some(answer) = answer(&buffer[..length], "udp", rule, &asked) {
            socket.send_to(&answer, peer).await.unwrap();
        }
    }
}

async fn by_tcp(listener: TcpListener, rule: Rule, asked: Arc<Mutex<Vec<Question>>>) {
    let mut clients = JoinSet::new();
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let asked = Arc::clone(&asked);
        clients.spawn(async move { while converse(&mut stream, rule, &asked).await.is_ok() {} });
    }
}

async fn converse(stream: &mut TcpStream, rule: Rule, asked: &Mutex<Vec<Question>>) -> std::io::Result<()> {
    let mut query = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut query).await?;
    if let Some(answer) = answer(&query, "tcp", rule, asked) {
        stream.write_u16(answer.len().try_into().unwrap()).await?;
        stream.write_all(&answer).await?;
    }
    Ok(())
}

fn answer(query: &[u8], by: &'static str, rule: Rule, asked: &Mutex<Vec<Question>>) -> Option<Vec<u8>> {
    let query = Message::from_vec(query).unwrap();
    let (id, asks) = (query.id, query.queries[0].clone());
    let question = Question { by, id, kind: asks.query_type(), name: asks.name().to_string() };
    let reply = rule(&question);
    asked.lock().push(question);
    let mut message = query.into_response();
    let record = |name: Name, data: RData| Record::from_rdata(name, 60, data);
    match reply {
        Reply::Say(code, all) => {
            message.metadata.response_code = code;
            message.answers = all.into_iter().map(|data| record(asks.name().clone(), data)).collect();
        }
        Reply::Chain(all) => {
            let name = |name: &str| Name::from_ascii(name).unwrap();
            message.answers = all.into_iter().map(|(owner, data)| record(name(owner), data)).collect();
        }
        Reply::Cut => message.metadata.truncation = true,
        Reply::Another => {
            message.metadata.id = id.wrapping_add(1);
            message.answers = vec![record(asks.name().clone(), v4(66))];
        }
        Reply::Nothing => return None,
        Reply::Bytes(bytes) => return Some(bytes),
    }
    Some(message.to_vec().unwrap())
}

fn v4(last: u8) -> RData {
    RData::A(A::new(192, 0, 2, last))
}

fn v6(last: u16) -> RData {
    RData::AAAA(AAAA::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last))
}

fn alias(name: &str) -> RData {
    RData::CNAME(CNAME(Name::from_ascii(name).unwrap()))
}

fn unknown() -> Reply {
    Reply::Say(ResponseCode::NXDomain, Vec::new())
}

/// 192.0.2.7 and nothing else.
fn seven(question: &Question) -> Reply {
    let found = if question.kind == RecordType::A { vec![v4(7)] } else { Vec::new() };
    Reply::Say(ResponseCode::NoError, found)
}

fn list(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn reach() -> Reach {
    let identity = PodIdentity { namespace: "n".into(), name: "p".into(), uid: PodUid::new("u") };
    Reach::of(&identity, &Network { host: true, ..Network::default() })
}

fn names(servers: &[&Server], searches: &[&str], options: &[&str]) -> NameServers {
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    let addresses = servers.iter().map(|server| server.address).collect();
    let dns = Dns { servers: addresses, searches: owned(searches), options: owned(options) };
    NameServers::new(&dns, &reach(), servers[0].port)
}

async fn look_up(names: &NameServers, name: &str) -> Result<Vec<IpAddr>, LookupError> {
    names.look_up(&Name::from_utf8(name).unwrap()).await
}

#[tokio::test]
async fn an_answer_that_is_too_long_for_a_datagram_comes_by_tcp() {
    let server = Server::start("127.53.1.1", 0, |question| match question.by {
        "udp" => Reply::Cut,
        _ if question.kind == RecordType::AAAA => Reply::Say(ResponseCode::NoError, Vec::new()),
        _ => Reply::Say(ResponseCode::NoError, (0..=255).chain(0..=255).map(v4).collect()),
    })
    .await;
    let found = look_up(&names(&[&server], &[], &["ndots:1"]), "many.example").await.unwrap();
    assert_eq!(found.len(), 512);
    assert!(server.asked.lock().iter().any(|asked| asked.by == "tcp"));
}

#[tokio::test]
async fn what_never_fits_is_a_passing_failure() {
    let server = Server::start("127.53.2.1", 0, |_| Reply::Cut).await;
    let names = names(&[&server], &[], &["timeout:1", "attempts:1"]);
    assert_eq!(look_up(&names, "many.example").await, Err(LookupError::Temporary));
}

#[tokio::test]
async fn the_next_server_answers_where_the_first_cannot() {
    let troubles: [Rule; 6] = [
        |_| Reply::Nothing,
        |_| Reply::Say(ResponseCode::ServFail, Vec::new()),
        |_| Reply::Say(ResponseCode::Refused, Vec::new()),
        |_| Reply::Bytes(vec![0xff; 700]),
        |_| Reply::Bytes(Vec::new()),
        |_| Reply::Another,
    ];
    for (number, trouble) in troubles.into_iter().enumerate() {
        let first = Server::start("127.53.3.1", 0, trouble).await;
        let second = Server::start("127.53.3.2", first.port, seven).await;
        let names = names(&[&first, &second], &[], &["timeout:1"]);
        assert_eq!(look_up(&names, "web.example").await, Ok(list(&["192.0.2.7"])), "{number}");
        assert!(!first.asked.lock().is_empty(), "{number}");
    }
}

#[tokio::test]
async fn a_server_that_says_no_is_believed() {
    let first = Server::start("127.53.4.1", 0, |_| unknown()).await;
    let second = Server::start("127.53.4.2", first.port, seven).await;
    let names = names(&[&first, &second], &[], &[]);
    assert_eq!(look_up(&names, "web.example").await, Err(LookupError::Unknown));
    assert!(second.asked.lock().is_empty());
}

#[tokio::test]
async fn silent_servers_are_asked_as_often_as_the_settings_say() {
    let first = Server::start("127.53.5.1", 0, |_| Reply::Nothing).await;
    let second = Server::start("127.53.5.2", first.port, |_| Reply::Nothing).await;
    let names = names(&[&first, &second], &["svc.example"], &["timeout:1", "attempts:2"]);
    assert_eq!(look_up(&names, "web").await, Err(LookupError::Temporary));
    for server in [first, second] {
        let mut asked = server.asked.lock().clone();
        asked.retain(|asked| asked.kind == RecordType::A);
        // A question that is sent again within its time has the same number.
        asked.dedup_by_key(|asked| asked.id);
        let all: Vec<_> = asked.iter().map(|asked| asked.name.as_str()).collect();
        assert_eq!(all, ["web.svc.example."; 2]);
    }
}

#[tokio::test]
async fn servers_take_turns_where_the_settings_say_so() {
    for (options, counts) in [(&["rotate"][..], [2, 2]), (&[], [4, 0])] {
        let first = Server::start("127.53.6.1", 0, seven).await;
        let second = Server::start("127.53.6.2", first.port, seven).await;
        let names = names(&[&first, &second], &[], options);
        for name in ["a.example", "b.example", "c.example", "d.example"] {
            assert_eq!(look_up(&names, name).await, Ok(list(&["192.0.2.7"])), "{name}");
        }
        assert_eq!([first, second].map(|server| server.names().len()), counts, "{options:?}");
    }
}

#[tokio::test]
async fn the_search_list_is_tried_in_the_order_that_the_dots_say() {
    let searches = ["shop.svc.example", "svc.example"];
    for (name, options, asked) in [
        ("web", "ndots:1", &["web.shop.svc.example.", "web.svc.example.", "web."][..]),
        ("web.shop", "ndots:1", &["web.shop.", "web.shop.shop.svc.example.", "web.shop.svc.example."]),
        ("web.shop", "ndots:2", &["web.shop.shop.svc.example.", "web.shop.svc.example.", "web.shop."]),
        ("web.", "ndots:5", &["web."]),
    ] {
        let server = Server::start("127.53.7.1", 0, |_| unknown()).await;
        let names = names(&[&server], &searches, &[options]);
        assert_eq!(look_up(&names, name).await, Err(LookupError::Unknown), "{name}");
        assert_eq!(server.names(), asked, "{name} {options}");
    }
}

#[tokio::test]
async fn the_search_goes_on_after_names_without_addresses_and_servers_that_cannot_tell() {
    let server = Server::start("127.53.8.1", 0, |question| match question.name.as_str() {
        "web.two.example." => Reply::Say(ResponseCode::NoError, Vec::new()),
        "web.three.example." | "db.one.example." => Reply::Say(ResponseCode::ServFail, Vec::new()),
        "web.four.example." => seven(question),
        _ => unknown(),
    })
    .await;
    let searches = ["one.example", "two.example", "three.example", "four.example"];
    let names = names(&[&server], &searches, &["attempts:1"]);
    assert_eq!(look_up(&names, "web").await, Ok(list(&["192.0.2.7"])));
    // It may be there, where nobody could tell.
    assert_eq!(look_up(&names, "db").await, Err(LookupError::Temporary));
    assert_eq!(look_up(&names, "cache").await, Err(LookupError::Unknown));
}

#[tokio::test]
async fn aliases_are_followed_to_their_end_and_not_in_a_circle() {
    let server = Server::start("127.53.9.1", 0, |question| match (question.name.as_str(), question.kind) {
        ("whole.example.", RecordType::A) => Reply::Chain(vec![
            ("whole.example.", alias("next.example.")),
            ("next.example.", alias("last.example.")),
            ("last.example.", v4(9)),
        ]),
        ("parts.example.", _) => Reply::Chain(vec![("parts.example.", alias("part.example."))]),
        ("part.example.", RecordType::A) => seven(question),
        ("circle.example.", _) => Reply::Chain(vec![("circle.example.", alias("round.example."))]),
        ("round.example.", _) => Reply::Chain(vec![("round.example.", alias("circle.example."))]),
        _ => Reply::Say(ResponseCode::NoError, Vec::new()),
    })
    .await;
    let names = names(&[&server], &[], &["timeout:1", "attempts:1"]);
    assert_eq!(look_up(&names, "whole.example").await, Ok(list(&["192.0.2.9"])));
    assert_eq!(look_up(&names, "parts.example").await, Ok(list(&["192.0.2.7"])));
    assert!(look_up(&names, "circle.example").await.is_err());
    assert!(server.asked.lock().len() < 100);
}

#[tokio::test]
async fn addresses_of_both_families_are_found_and_one_is_enough() {
    let server = Server::start("127.53.10.1", 0, |question| {
        let said = |all: Vec<RData>| Reply::Say(ResponseCode::NoError, all);
        match (question.name.as_str(), question.kind) {
            ("both.example." | "old.example.", RecordType::A) => said(vec![v4(1), v4(2)]),
            ("both.example." | "new.example.", RecordType::AAAA) => said(vec![v6(1)]),
            ("old.example.", _) => Reply::Nothing,
            ("new.example.", _) => Reply::Say(ResponseCode::ServFail, Vec::new()),
            ("broken.example.", RecordType::AAAA) => Reply::Say(ResponseCode::NotImp, Vec::new()),
            _ => unknown(),
        }
    })
    .await;
    let names = names(&[&server], &[], &["timeout:1"]);
    assert_eq!(look_up(&names, "both.example").await, Ok(list(&["192.0.2.1", "192.0.2.2", "2001:db8::1"])));
    assert_eq!(look_up(&names, "old.example").await, Ok(list(&["192.0.2.1", "192.0.2.2"])));
    assert_eq!(look_up(&names, "new.example").await, Ok(list(&["2001:db8::1"])));
    assert_eq!(look_up(&names, "broken.example").await, Err(LookupError::Unknown));
}

#[tokio::test]
async fn servers_are_asked_over_ipv6_and_by_tcp_alone_where_that_is_wished() {
    for (address, options, by) in [("::1", &[][..], "udp"), ("127.53.11.1", &["use-vc"], "tcp")] {
        let server = Server::start(address, 0, seven).await;
        let names = names(&[&server], &[], options);
        assert_eq!(look_up(&names, "web.example").await, Ok(list(&["192.0.2.7"])), "{address}");
        let asked = server.asked.lock();
        assert!(asked.iter().all(|asked| asked.by == by), "{asked:?}");
    }
}

#[tokio::test]
async fn an_answer_is_kept_for_as_long_as_it_lives() {
    let server = Server::start("127.53.12.1", 0, seven).await;
    let names = names(&[&server], &[], &[]);
    for _ in 0..3 {
        assert_eq!(look_up(&names, "web.example").await, Ok(list(&["192.0.2.7"])));
    }
    assert_eq!(server.names(), ["web.example."]);
}

#[test]
fn options_have_the_bounds_of_resolv_conf() {
    let of = |text: &str| Options::of(&[text.to_owned()]);
    let plain = Options::of(&[]);
    assert_eq!((plain.dots, plain.attempts, plain.timeout), (1, 2, Duration::from_secs(5)));
    assert_eq!([of("ndots:5").dots, of("ndots:99").dots, of("ndots:x").dots], [5, 15, 1]);
    assert_eq!([of("timeout:99"), of("timeout:0")].map(|it| it.timeout.as_secs()), [30, 1]);
    assert_eq!([of("attempts:99").attempts, of("attempts:0").attempts], [5, 1]);
    assert!(of("rotate").rotates && of("use-vc").by_tcp_alone && of("edns0").extended);
    for nonsense in ["", ":", "ndots", "timeout:-1", "rotate:no", "attempts:99999999999999999999"] {
        let ignored = Options { rotates: false, ..of(nonsense) };
        assert_eq!(ignored, plain, "{nonsense}");
    }
}
