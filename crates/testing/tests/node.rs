//! Nodes as processes: started, ended, started again. The program is a stand-in; its flags are those of `coracle node`.

use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;

use coracle_testing::{Cluster, Node, NodeOptions};

fn options(name: &str) -> NodeOptions {
    NodeOptions {
        name: name.to_owned(),
        binary: env!("CARGO_BIN_EXE_coracle-testing-stand-in").into(),
        ..NodeOptions::default()
    }
}

#[tokio::test]
async fn a_node_is_terminated_killed_and_started_again_on_its_port() {
    let cluster = Cluster::shared().await.unwrap();
    let mut node = Node::start(cluster, options("again")).await.unwrap();
    let (port, process) = (node.port(), node.process_id());
    TcpStream::connect(("127.0.0.1", port)).unwrap();
    assert_eq!(node.terminate().await.unwrap().code(), Some(0));

    node.restart().await.unwrap();
    assert_ne!(node.process_id(), process);
    TcpStream::connect(("127.0.0.1", port)).unwrap();
    assert_eq!(node.kill().await.unwrap().signal(), Some(9));

    node.restart().await.unwrap();
    assert_eq!(node.port(), port);
}

#[tokio::test]
async fn a_node_that_does_not_start_says_why() {
    let cluster = Cluster::shared().await.unwrap();
    let options = NodeOptions { arguments: vec!["--fail".to_owned()], ..options("failing") };
    let error = Node::start(cluster, options).await.map(drop).unwrap_err().to_string();
    assert!(error.contains("node failing ended") && error.contains("it was told to fail"), "{error}");
}
