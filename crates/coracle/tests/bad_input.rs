//! What keeps a node from running is said on one line that names it, before anything is started.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};
use std::thread;

use serde_json::json;
use tempfile::TempDir;

/// A place to start a node in that nothing else shares.
struct Scene {
    directory: TempDir,
}

impl Scene {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// A kubeconfig for a server on this port of the loopback.
    fn kubeconfig(&self, port: u16) -> String {
        let path = self.path("kubeconfig");
        let kubeconfig = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "c", "cluster": { "server": format!("http://127.0.0.1:{port}") } }],
            "users": [{ "name": "u", "user": {} }],
            "contexts": [{ "name": "x", "context": { "cluster": "c", "user": "u" } }],
            "current-context": "x",
        });
        std::fs::write(&path, kubeconfig.to_string()).unwrap();
        path
    }

    /// [`run`](Self::run) with an authority for clients, which the kubeconfig does not name.
    fn run_with_authority(&self, flags: &[(&str, String)]) -> Output {
        let path = self.path("ca.pem");
        let made = rcgen::generate_simple_self_signed(["authority".to_owned()]).unwrap();
        std::fs::write(&path, made.cert.pem()).unwrap();
        let given = flags.iter().map(|(flag, value)| (*flag, value.as_str()));
        self.run(&given.chain([("--client-ca-file", path.as_str())]).collect::<Vec<_>>())
    }

    /// Runs `coracle node`, which ends, with these flags in place of good ones.
    fn run(&self, flags: &[(&str, &str)]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_coracle"));
        command.env_clear().arg("node");
        let (root, port) = (self.path("root"), free_port().to_string());
        for (flag, value) in [("--hostname-override", "n1"), ("--root-dir", &root), ("--port", &port)] {
            if !flags.iter().any(|(given, _)| *given == flag) {
                command.args([flag, value]);
            }
        }
        for (flag, value) in flags {
            command.args([flag, value]);
        }
        command.output().unwrap()
    }
}

/// The port of an API server that knows no reviews, so that anybody may be its node.
fn reticent_server() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        // An answer before the end of the request could be lost with the connection.
        let mut request = BufReader::new(connection.try_clone().unwrap());
        let header = request.by_ref().lines().map(Result::unwrap).take_while(|line| !line.is_empty());
        let header: Vec<_> = header.map(|line| line.to_lowercase()).collect();
        let length = header.iter().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        request.read_exact(&mut vec![0; length.parse().unwrap()]).unwrap();
        let body =
            json!({ "status": "Failure", "code": 404, "reason": "NotFound", "message": "" }).to_string();
        let head = "HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nConnection: close\r\n";
        write!(connection, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    });
    port
}

/// A port on which nothing listens.
fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

#[track_caller]
fn check(output: &Output, code: i32, parts: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    for part in parts {
        assert!(said.contains(part), "{part} in {said}");
    }
}

#[test]
fn a_missing_command_is_named() {
    let output = Command::new(env!("CARGO_BIN_EXE_coracle")).env_clear().output().unwrap();
    check(&output, 2, &["a command is missing", "coracle node"]);
}

#[test]
fn a_bad_flag_is_a_usage_error() {
    let scene = Scene::new();
    let kubeconfig = scene.kubeconfig(1);
    check(&scene.run(&[("--nonsense", "x")]), 2, &["--nonsense"]);
    check(&scene.run(&[]), 2, &["--kubeconfig"]);
    for (flag, value) in [
        ("--port", "http"),
        ("--node-ip", "nowhere"),
        ("--node-labels", "node-role.kubernetes.io/worker=x"),
        ("--register-with-taints", "a=b:Sometimes"),
        ("--max-pods", "many"),
        ("--eviction-hard", "disk<1Gi"),
        ("--hostname-override", "Not A Name"),
        ("--insecure-registry", "http://x"),
        ("--tls-cert-file", "/x"),
    ] {
        check(&scene.run(&[("--kubeconfig", &kubeconfig), (flag, value)]), 2, &[flag]);
    }
    assert!(!Path::new(&scene.path("root")).exists(), "nothing was started");
}

#[test]
fn a_wrong_kubeconfig_is_named() {
    let scene = Scene::new();
    let missing = scene.path("missing");
    check(&scene.run(&[("--kubeconfig", &missing)]), 1, &["--kubeconfig", &missing, "No such file"]);
    let garbage = scene.path("garbage");
    for text in ["{", "[]", "apiVersion: v1\nkind: Config\n"] {
        std::fs::write(&garbage, text).unwrap();
        check(&scene.run(&[("--kubeconfig", &garbage)]), 1, &["--kubeconfig", &garbage]);
    }
}

#[test]
fn an_unreachable_server_is_named() {
    let scene = Scene::new();
    let port = free_port();
    let ca = scene.path("ca.pem");
    let output = scene.run(&[("--kubeconfig", &scene.kubeconfig(port)), ("--client-ca-file", &ca)]);
    check(&output, 1, &["--kubeconfig", &format!("127.0.0.1:{port}"), "Connection refused"]);
    assert!(!Path::new(&scene.path("root")).exists(), "nothing was started");
}

#[test]
fn a_port_in_use_is_named() {
    let scene = Scene::new();
    let taken = TcpListener::bind(("0.0.0.0", 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = scene.run(&[("--kubeconfig", &scene.kubeconfig(1)), ("--port", &port)]);
    check(&output, 1, &["--port", &port, "Address already in use"]);
    assert!(!Path::new(&scene.path("root")).exists(), "nothing was started");
}

#[test]
fn a_certificate_that_is_none_is_named() {
    let scene = Scene::new();
    let garbage = scene.path("garbage.pem");
    std::fs::write(&garbage, "no certificate").unwrap();
    let kubeconfig = scene.kubeconfig(reticent_server());
    let output = scene.run(&[("--kubeconfig", &kubeconfig), ("--client-ca-file", &garbage)]);
    check(&output, 1, &["--client-ca-file", &garbage]);
    assert!(!Path::new(&scene.path("root")).exists(), "nothing was started");
}

#[test]
fn an_unwritable_root_directory_is_named() {
    let scene = Scene::new();
    let file = scene.path("file");
    std::fs::write(&file, "").unwrap();
    let root = format!("{file}/root");
    let flags = [("--kubeconfig", scene.kubeconfig(reticent_server())), ("--root-dir", root.clone())];
    check(&scene.run_with_authority(&flags), 1, &["--root-dir", &root, "Not a directory"]);
}

#[test]
fn a_root_directory_in_use_is_named() {
    let scene = Scene::new();
    let root = scene.path("root");
    std::fs::create_dir(&root).unwrap();
    let lock = std::fs::File::create(format!("{root}/lock")).unwrap();
    lock.lock().unwrap();
    let flags = [("--kubeconfig", scene.kubeconfig(reticent_server()))];
    check(&scene.run_with_authority(&flags), 1, &["--root-dir", &root, "in use by another node"]);
}

#[test]
fn flags_win_over_the_environment() {
    let scene = Scene::new();
    let bad = |flags: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_coracle"))
            .env_clear()
            .env("CORACLE_PORT", "from-environment")
            .env("KUBECONFIG", scene.path("missing"))
            .args(["node", "--hostname-override", "n1", "--root-dir", &scene.path("root")])
            .args(flags)
            .output()
            .unwrap()
    };
    check(&bad(&[]), 2, &["--port", "from-environment"]);
    check(&bad(&["--port", "10250"]), 1, &["--kubeconfig", &scene.path("missing")]);
}

#[test]
fn help_is_no_error() {
    let output = Command::new(env!("CARGO_BIN_EXE_coracle")).args(["node", "--help"]).output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("--register-with-taints") && text.contains("CORACLE_MAX_PODS"), "{text}");
}
