//! Images that nobody could run, from a registry that sends whatever it is told to.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;

use coracle_testing::Cluster;
use coracle_testing::registry::{Artifact, Blob, Files};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::refusals::{check, goes_on};
use crate::scene::{Scene, options};
use crate::{guests, manifests, states, until};

const FIFO: u8 = b'6';
const CHARACTER_DEVICE: u8 = b'3';
const FILE: u8 = b'0';

/// What is answered by path: a status, and a body or, of a redirect, where to.
type Answers = Arc<Mutex<HashMap<String, (u16, Bytes)>>>;

/// A registry that checks nothing; it ends when it is dropped.
struct Wrong {
    address: SocketAddr,
    answers: Answers,
    _listening: JoinSet<()>,
}

impl Wrong {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, answers) = (listener.local_addr().unwrap(), Answers::default());
        let mut listening = JoinSet::new();
        listening.spawn(serve(listener, answers.clone()));
        Self { address, answers, _listening: listening }
    }

    fn answer(&self, path: &str, status: u16, body: impl Into<Bytes>) {
        self.answers.lock().insert(format!("/v2/{path}"), (status, body.into()));
    }

    fn manifest(&self, name: &str, manifest: &Value) {
        self.answer(&format!("{name}/manifests/v1"), 200, manifest.to_string());
    }

    /// Has the image, but that `change` was made to its manifest.
    fn image(&self, name: &str, image: &Artifact, change: impl FnOnce(&mut Value)) {
        for Blob { data, .. } in image.layers.iter().chain([&image.config]) {
            let digest = Blob::new("", data.clone()).digest();
            self.answer(&format!("{name}/blobs/{digest}"), 200, data.clone());
        }
        let mut manifest = image.manifest();
        change(&mut manifest);
        self.manifest(name, &manifest);
    }

    fn reference(&self, name: &str) -> String {
        format!("{}/{name}:v1", self.address)
    }
}

async fn serve(listener: TcpListener, answers: Answers) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(converse(stream, answers.clone()));
    }
}

async fn converse(stream: TcpStream, answers: Answers) {
    let answer = |request: Request<Incoming>| {
        let (status, body) = answers.lock().get(request.uri().path()).cloned().unwrap_or((404, Bytes::new()));
        let mut response = Response::builder().status(status);
        if status == 307 {
            response = response.header("location", &*body);
        }
        std::future::ready(Ok::<_, Infallible>(response.body(Full::new(body)).unwrap()))
    };
    // The node may have enough of it.
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service_fn(answer))
        .await;
}

/// An image with this layer.
fn image(layer: Files, config: &Value) -> Artifact {
    Artifact::image(vec![layer], config).unwrap()
}

/// Makes the registry say what a document must not, and returns what a user is told of each.
fn documents(registry: &Wrong) -> Vec<(&'static str, &'static str)> {
    let good = image(Files::default().file("a", b"a"), &json!({}));
    let layer = good.manifest()["layers"][0].clone();
    let twenty_thousand = |manifest: &mut Value| manifest["layers"] = vec![layer; 20_000].into();
    registry.image("many-layers", &good, twenty_thousand);
    registry.image("negative", &good, |manifest| manifest["layers"][0]["size"] = json!(-5));
    registry.image("path", &good, |manifest| manifest["layers"][0]["digest"] = json!("../../etc/passwd"));
    registry.manifest("schema-1", &json!({"schemaVersion": 1, "fsLayers": [], "history": []}));
    registry.answer("html/manifests/v1", 200, "<html>Not here</html>");
    registry.answer("huge/manifests/v1", 200, vec![b' '; 64 << 20]);
    registry.answer("circle/manifests/v1", 307, "/v2/circle/manifests/v1");
    registry.answer("broken/manifests/v1", 500, "");
    registry.answer("busy/manifests/v1", 429, "");
    registry.answer("forbidden/manifests/v1", 403, "");
    vec![
        ("many-layers", "the image has 20000 layers"),
        ("negative", "impossible size -5"),
        ("path", "is not a digest"),
        ("schema-1", "schema version 1"),
        ("html", "malformed"),
        ("huge", "longer than"),
        ("circle", "redirect"),
        ("broken", "500 internal server error"),
        ("busy", "429 too many requests"),
        ("forbidden", "denied"),
    ]
}

/// The same of what its layers hold.
fn layers(registry: &Wrong) -> Vec<(&'static str, &'static str)> {
    let good = image(Files::default().file("a", b"a"), &json!({}));
    let mut other = good.clone();
    other.config = image(Files::default().file("b", b"b"), &json!({})).config;
    registry.image("other-content", &other, |_| ());
    let mut half = good.clone();
    half.layers[0].data.truncate(30);
    registry.image("half", &half, |_| ());
    registry.image("short", &good, |_| ());
    let blob = format!("short/blobs/{}", good.layers[0].digest());
    registry.answer(&blob, 200, good.layers[0].data.slice(..30));
    registry.image("not-utf8", &image(Files::default().raw(b"a\xff", FILE, ""), &json!({})), |_| ());
    registry.image("climbs", &image(Files::default().raw(b"../../a", FILE, ""), &json!({})), |_| ());
    vec![
        ("other-content", "configuration promised"),
        ("half", "damaged"),
        ("short", "is truncated"),
        ("not-utf8", "is not utf-8"),
        ("climbs", "leads out of it"),
    ]
}

#[tokio::test]
async fn each_is_named_and_what_was_there_stays() {
    let registry = Wrong::start().await;
    let mut options = options("hostile").await.unwrap();
    options.insecure_registries.push(registry.address.to_string());
    let scene = Scene::with(Cluster::shared().await.unwrap(), options).await.unwrap();
    let hello = guests::image("hello").await.unwrap();
    scene.run_until("before", manifests::once(&hello, &[]), states::has_ended).await.unwrap();
    let cases = [documents(&registry), layers(&registry)].concat();
    for (name, _) in &cases {
        scene.run(name, manifests::once(&registry.reference(name), &[])).await.unwrap();
    }
    for (name, part) in &cases {
        check(&scene, name, "ImagePull", part).await;
        let why = format!("Failed to pull image \"{}\": ", registry.reference(name));
        let event = scene.event(name, "Failed", &why).await.unwrap();
        assert!(event.message.unwrap().to_lowercase().contains(part), "{name}");
        scene.delete(name, Some(0)).await.unwrap();
    }
    let here = manifests::of("Never", &json!({"image": hello, "imagePullPolicy": "Never"}));
    let after = scene.run_until("after", here, states::has_ended).await.unwrap();
    assert_eq!(states::exit(&after), Some((0, "Completed")));
    let unfinished = scene.node.root_directory().join("images/unfinished");
    let is_empty = || fs::read_dir(&unfinished).unwrap().next().is_none();
    until::so("nothing unfinished is left", is_empty).await.unwrap();
    goes_on(&scene).await;
}

#[tokio::test]
async fn what_is_no_program_is_named_and_what_is_no_file_is_left_out() {
    let registry = Wrong::start().await;
    let mut options = options("odd-files").await.unwrap();
    options.insecure_registries.push(registry.address.to_string());
    let scene = Scene::with(Cluster::shared().await.unwrap(), options).await.unwrap();
    let wasm = guests::wasm("hello").unwrap();
    let files = || Files::default().file("app.wasm", &wasm).file("text", b"no program");
    let entry = |path: &str| json!({"Entrypoint": [path]});
    registry.image("no-entry", &image(files(), &entry("/nothing.wasm")), |_| ());
    registry.image("no-program", &image(files(), &entry("/text")), |_| ());
    let odd = files().raw(b"dev/null", CHARACTER_DEVICE, "").raw(b"pipe", FIFO, "");
    registry.image("odd", &image(odd, &entry("/app.wasm")), |_| ());
    for (name, policy) in [("no-entry", "Always"), ("no-program", "Always"), ("odd", "Never")] {
        scene.run(name, manifests::app(policy, &registry.reference(name), &[])).await.unwrap();
    }
    for (name, why) in
        [("no-entry", "stat /nothing.wasm: no such file or directory"), ("no-program", "exec format error")]
    {
        let loops = |pod: &Pod| states::waiting_reason(pod) == "CrashLoopBackOff";
        let pod = scene.pod(name, loops).await.unwrap();
        assert!(states::start_error(&pod).contains(why), "{name}: {pod:?}");
        scene.event(name, "Failed", why).await.unwrap();
    }
    let odd = scene.pod("odd", states::has_ended).await.unwrap();
    assert_eq!(states::exit(&odd), Some((0, "Completed")));
    goes_on(&scene).await;
}
