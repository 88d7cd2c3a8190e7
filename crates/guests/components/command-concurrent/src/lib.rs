//! Many programs of wasip3 in one: it does as its name, or its first argument, says.

use wasip3::cli::{environment, exit, stderr, stdin, stdout};
use wasip3::clocks::monotonic_clock::wait_for;
use wasip3::filesystem::preopens::get_directories;
use wasip3::filesystem::types::{DescriptorFlags, ErrorCode, OpenFlags, PathFlags};
use wasip3::sockets::types::{self as sockets, IpAddressFamily, TcpSocket, UdpSocket};
use wasip3::wit_bindgen::{StreamReader, spawn_local};
use wasip3::wit_stream;

#[path = "../../http-concurrent/src/network.rs"]
#[expect(dead_code, reason = "a server needs more of it")]
mod network;

wasip3::cli::command::export!(Program);

struct Program;

/// In nanoseconds.
const HOURS: u64 = 10_000_000_000_000;

impl wasip3::exports::cli::run::Guest for Program {
    async fn run() -> Result<(), ()> {
        let arguments = environment::get_arguments();
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["hello", ..] => say("hello from a guest\n".to_owned()).await,
            ["trap", ..] => std::process::abort(),
            ["spin", ..] => loop {
                std::hint::black_box(());
            },
            ["grow-memory", ..] => loop {
                std::mem::forget(std::hint::black_box(vec![1_u8; 1 << 16]));
            },
            ["exit-code", code] | [_, "exit", code] => {
                exit::exit_with_code(code.parse().unwrap_or_default());
                Ok(())
            }
            ["sleep", ..] | [_, "sleep"] => {
                wait_for(HOURS).await;
                Ok(())
            }
            [_, "say", text] => say(format!("{text}\n")).await,
            [_, "complain", text] => complain(format!("{text}\n")).await,
            [_, "copy"] => stdout::write_via_stream(stdin::read_via_stream().0).await.map_err(drop),
            [_, "echo", address] => echo(address).await.map_err(drop),
            [_, "ask", address] => say(told(network::ask_tcp(address).await)).await,
            [_, "udp-ask", address] => say(told(network::ask_udp(address).await)).await,
            [_, "udp-echo", address] => udp_echo(address).await.map_err(drop),
            [_, "bind", address] => say(told(bind(address))).await,
            [_, "resolve", name] => say(network::resolve(name).await).await,
            [_, "sockets"] => say(format!("{}\n", network::sockets().len())).await,
            [_, "environment"] => say(variables()).await,
            [_, "show", directory, path] => match file(directory, path).await {
                Ok(content) => stdout::write_via_stream(content).await.map_err(drop),
                Err(error) => say(format!("{error:?}\n")).await,
            },
            _ => Err(()),
        }
    }
}

fn variables() -> String {
    let mut variables = environment::get_environment();
    variables.sort();
    variables.iter().map(|(name, value)| format!("{name}={value}\n")).collect()
}

async fn say(text: String) -> Result<(), ()> {
    stdout::write_via_stream(stream(text)).await.map_err(drop)
}

async fn complain(text: String) -> Result<(), ()> {
    stderr::write_via_stream(stream(text)).await.map_err(drop)
}

fn stream(text: String) -> StreamReader<u8> {
    let (mut to, from) = wit_stream::new();
    spawn_local(async move {
        to.write_all(text.into_bytes()).await;
    });
    from
}

async fn file(directory: &str, path: &str) -> Result<StreamReader<u8>, ErrorCode> {
    let directories = get_directories();
    let (root, _) = directories.iter().find(|(_, name)| name == directory).ok_or(ErrorCode::NoEntry)?;
    let read = DescriptorFlags::READ;
    let file = root.open_at(PathFlags::empty(), path.to_owned(), OpenFlags::empty(), read).await?;
    Ok(file.read_via_stream(0).0)
}

/// Sends back what each connection sends, for ever.
async fn echo(address: &str) -> Result<(), sockets::ErrorCode> {
    let socket = TcpSocket::create(IpAddressFamily::Ipv4)?;
    socket.bind(network::parse(address))?;
    let mut clients = socket.listen()?;
    let _ = say("listening\n".to_owned()).await;
    while let Some(client) = clients.next().await {
        spawn_local(async move {
            let (said, _) = client.receive();
            let _ = client.send(said).await;
        });
    }
    Ok(())
}

/// Sends back each datagram, for ever.
async fn udp_echo(address: &str) -> Result<(), sockets::ErrorCode> {
    let socket = UdpSocket::create(IpAddressFamily::Ipv4)?;
    socket.bind(network::parse(address))?;
    let _ = say("listening\n".to_owned()).await;
    loop {
        let (data, from) = socket.receive().await?;
        socket.send(data, Some(from)).await?;
    }
}

fn bind(address: &str) -> Result<String, sockets::ErrorCode> {
    let socket = TcpSocket::create(IpAddressFamily::Ipv4)?;
    socket.bind(network::parse(address))?;
    let _clients = socket.listen()?;
    Ok(format!("bound {}\n", network::show(socket.get_local_address()?)))
}

fn told(outcome: Result<String, sockets::ErrorCode>) -> String {
    outcome.unwrap_or_else(|error| format!("failed {error:?}\n"))
}
