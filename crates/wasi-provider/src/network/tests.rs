use std::net::{TcpListener, UdpSocket};

use wasmtime::Engine;

use super::*;

type Add = fn(&mut Linker<ComponentGuest>) -> wasmtime::Result<()>;

/// Without leave to shadow, a name that is there already is refused.
#[test]
fn the_interfaces_have_the_versions_that_wasmtime_gives_them() {
    let adds: [Add; 4] =
        [tcp::add_to_linker, udp::add_to_linker, concurrent::add_to_linker, lookup::add_to_linker];
    for add in adds {
        let mut linker = Linker::<ComponentGuest>::new(&Engine::default());
        add(&mut linker).unwrap();
        let mut linker = Linker::<ComponentGuest>::new(&Engine::default());
        wasmtime_wasi::p2::add_to_linker_async(&mut linker).unwrap();
        wasmtime_wasi::p3::add_to_linker(&mut linker).unwrap();
        assert!(add(&mut linker).is_err());
    }
}

#[test]
fn an_address_is_taken_while_somebody_listens_there() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    assert!(is_taken(address, Transport::Tcp));
    drop(listener);
    assert!(!is_taken(address, Transport::Tcp));
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    assert!(is_taken(socket.local_addr().unwrap(), Transport::Udp));
}
