//! Speaks with others over the network, as its first argument says; prints one line for each thing that happened.

use std::env;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket};

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["echo", address] => echo(address),
        ["answer", address] => answer(address),
        ["ask", address, text] => ask(address, text),
        ["bind", address] => listener(address).and_then(|listener| say(&format!("bound {}", listener.local_addr()?))),
        ["udp-echo", address] => udp_echo(address),
        ["udp-ask", address, text] => udp_ask(address, text),
        ["resolve", name] => resolve(name),
        ["names", address, name, known] => names(address, name, known),
        _ => Err(io::Error::other("net echo|answer|ask|bind|udp-echo|udp-ask|resolve|names …")),
    };
    if let Err(error) = outcome {
        println!("failed {:?}: {error}", error.kind());
        std::process::exit(1);
    }
}

fn say(line: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{line}")
}

/// The socket that the node has opened for this program, which cannot open one itself.
#[cfg(target_env = "p1")]
fn listener(_: &str) -> io::Result<TcpListener> {
    use std::os::fd::FromRawFd;
    let count: i32 = env::var("LISTEN_FDS").ok().and_then(|count| count.parse().ok()).unwrap_or_default();
    if count == 0 {
        return Err(io::Error::other("LISTEN_FDS is not set"));
    }
    Ok(unsafe { TcpListener::from_raw_fd(3) })
}

#[cfg(not(target_env = "p1"))]
fn listener(address: &str) -> io::Result<TcpListener> {
    TcpListener::bind(address)
}

/// Sends back what each connection sends, one connection after the other; ends when it is asked to by `quit`.
fn echo(address: &str) -> io::Result<()> {
    let listener = listener(address)?;
    say("listening")?;
    loop {
        let (mut stream, _) = listener.accept()?;
        let mut buffer = [0; 4096];
        loop {
            let length = match stream.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(length) => length,
            };
            if &buffer[..length] == b"quit" {
                return Ok(());
            }
            if stream.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
    }
}

/// Answers every HTTP request alike.
fn answer(address: &str) -> io::Result<()> {
    let listener = listener(address)?;
    say("listening")?;
    loop {
        let (mut stream, _) = listener.accept()?;
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
            head.push(byte[0]);
        }
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\nhello\n");
    }
}

fn ask(address: &str, text: &str) -> io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(text.as_bytes())?;
    let mut answer = vec![0; text.len()];
    stream.read_exact(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    say(&format!("{answer} from {} by {}", stream.peer_addr()?, stream.local_addr()?.ip()))
}

fn udp_echo(address: &str) -> io::Result<()> {
    let socket = UdpSocket::bind(address)?;
    say("listening")?;
    let mut buffer = [0; 2048];
    loop {
        let (length, peer) = socket.recv_from(&mut buffer)?;
        socket.send_to(&buffer[..length], peer)?;
        if &buffer[..length] == b"quit" {
            return Ok(());
        }
    }
}

fn udp_ask(address: &str, text: &str) -> io::Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.send_to(text.as_bytes(), address)?;
    let mut buffer = [0; 2048];
    let (length, peer) = socket.recv_from(&mut buffer)?;
    let answer = String::from_utf8_lossy(&buffer[..length]).into_owned();
    say(&format!("{answer} from {peer} by {}", socket.local_addr()?.ip()))
}

fn resolve(name: &str) -> io::Result<()> {
    let mut found: Vec<String> = (name, 80).to_socket_addrs()?.map(|address| address.ip().to_string()).collect();
    found.sort();
    say(&found.join(" "))
}

/// A name server that knows one name, of which it has one IPv4 address.
fn names(address: &str, name: &str, known: &str) -> io::Result<()> {
    let known: std::net::Ipv4Addr = known.parse().map_err(io::Error::other)?;
    let socket = UdpSocket::bind(address)?;
    say("listening")?;
    let mut buffer = [0; 512];
    loop {
        let (length, peer) = socket.recv_from(&mut buffer)?;
        let Some((asked, end)) = question(&buffer[..length]) else { continue };
        let is_known = asked.eq_ignore_ascii_case(name);
        let has_answer = is_known && buffer[end - 3] == 1;
        let mut answer = buffer[..end].to_vec();
        answer[2..4].copy_from_slice(&[0x81, if is_known { 0x80 } else { 0x83 }]);
        answer[6..12].copy_from_slice(&[0, u8::from(has_answer), 0, 0, 0, 0]);
        if has_answer {
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
            answer.extend(known.octets());
        }
        socket.send_to(&answer, peer)?;
    }
}

/// The name that a query asks for, and where the question ends.
fn question(query: &[u8]) -> Option<(String, usize)> {
    let (mut labels, mut at) = (Vec::new(), 12);
    loop {
        let length = usize::from(*query.get(at)?);
        if length == 0 {
            return Some((labels.join("."), at + 5)).filter(|(_, end)| *end <= query.len());
        }
        labels.push(String::from_utf8_lossy(query.get(at + 1..at + 1 + length)?).into_owned());
        at += 1 + length;
    }
}
