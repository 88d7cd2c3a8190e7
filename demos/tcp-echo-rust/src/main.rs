//! Sends back what its clients send: an ordinary program of the standard library.
//!
//! As a component it makes its socket itself. A wasip1 module cannot: it finds one open for each TCP port that its
//! container declares, from descriptor 3 on.

use std::io;
use std::net::{TcpListener, TcpStream};

fn main() -> io::Result<()> {
    let listener = listener()?;
    println!("listening");
    for client in listener.incoming() {
        if let Err(error) = client.and_then(echo) {
            eprintln!("a client: {error}");
        }
    }
    Ok(())
}

/// Until the client has said all it wants to.
fn echo(mut client: TcpStream) -> io::Result<()> {
    let mut answers = client.try_clone()?;
    io::copy(&mut client, &mut answers).map(drop)
}

#[cfg(not(all(target_os = "wasi", target_env = "p1")))]
fn listener() -> io::Result<TcpListener> {
    let port = std::env::args().nth(1).unwrap_or_else(|| "7000".to_owned());
    TcpListener::bind(format!("0.0.0.0:{port}"))
}

#[cfg(all(target_os = "wasi", target_env = "p1"))]
fn listener() -> io::Result<TcpListener> {
    use std::os::fd::FromRawFd as _;

    if std::env::var_os("LISTEN_FDS").is_none() {
        return Err(io::Error::other("no socket to listen on: the container declares no TCP port"));
    }
    // SAFETY: the runtime has opened it for this program alone.
    Ok(unsafe { TcpListener::from_raw_fd(3) })
}
