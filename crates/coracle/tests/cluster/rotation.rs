//! Tokens that are renewed before they end.

use std::fs;
use std::path::PathBuf;

use coracle_testing::{Cluster, NodeOptions};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::CONTENT_LENGTH;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::PostParams;
use kube::client::Body;
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::scene::{Scene, options};
use crate::{files, states, until};

/// The API server makes no token that ends within ten minutes. Between it and the node, each is said to end so much sooner,
/// after 20 seconds; a node renews what has lived four fifths of its time, or up to 10 seconds earlier.
const SOONER: SignedDuration = SignedDuration::from_secs(580);

/// Speaks for a node to the API server, as the node.
async fn front(client: Client, tasks: &mut JoinSet<()>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let client = client.clone();
            let service = service_fn(move |request| forward(client.clone(), request));
            connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    port
}

async fn forward(client: Client, request: Request<Incoming>) -> Result<Response<Body>, kube::Error> {
    let is_token = request.uri().path().ends_with("/token");
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(kube::Error::HyperError)?.to_bytes();
    let answer = client.send(Request::from_parts(parts, Body::from(body))).await?;
    if !is_token {
        return Ok(answer);
    }
    let (mut parts, body) = answer.into_parts();
    let mut token: Value = serde_json::from_slice(&body.collect_bytes().await?).unwrap();
    let end: Timestamp = token["status"]["expirationTimestamp"].as_str().unwrap().parse().unwrap();
    token["status"]["expirationTimestamp"] = json!((end - SOONER).to_string());
    parts.headers.remove(CONTENT_LENGTH);
    Ok(Response::from_parts(parts, Body::from(token.to_string().into_bytes())))
}

fn kubeconfig(port: u16) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kubeconfig");
    let content = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": format!("http://127.0.0.1:{port}")}}],
        "users": [{"name": "c", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
    });
    fs::write(&path, content.to_string()).unwrap();
    (folder, path)
}

async fn review(scene: &Scene<'_>, token: &str) -> TokenReviewStatus {
    let spec = TokenReviewSpec { token: token.to_owned(), audiences: None };
    let review = TokenReview { spec, ..TokenReview::default() };
    let api = Api::<TokenReview>::all(scene.client.clone());
    api.create(&PostParams::default(), &review).await.unwrap().status.unwrap()
}

#[tokio::test]
async fn a_token_is_renewed_and_the_new_one_is_good() {
    let cluster = Cluster::shared().await.unwrap();
    let identity = cluster.node_identity("rotates").unwrap();
    let mut tasks = JoinSet::new();
    let port = front(cluster.client(&identity.kubeconfig).await.unwrap(), &mut tasks).await;
    let (_folder, kubeconfig) = kubeconfig(port);
    let options = NodeOptions { kubeconfig: Some(kubeconfig), ..options("rotates").await.unwrap() };
    let scene = Scene::with(cluster, options).await.unwrap();
    let token = json!({"serviceAccountToken": {"path": "token", "expirationSeconds": 600}});
    let volumes = json!([{"name": "v", "projected": {"sources": [token]}}]);
    let mounts = json!([{"name": "v", "mountPath": "/v"}]);
    let spec = files::spec(volumes, mounts, &["follow /v/token none"]).await;
    let pod = scene.run_until("p", spec, states::is_running).await.unwrap();

    let log = scene.log_file(&pod, "app", 0);
    let seen = || {
        let log = fs::read_to_string(&log).unwrap_or_default();
        let tokens = log.lines().filter_map(|line| line.split_once("/v/token holds "));
        tokens.map(|(_, token)| token.trim().to_owned()).collect::<Vec<_>>()
    };
    let tokens = until::found("two tokens, seen by the guest", || Some(seen()).filter(|seen| seen.len() > 1));
    for token in tokens.await.unwrap() {
        let status = review(&scene, &token).await;
        assert_eq!(status.authenticated, Some(true), "{status:?}");
        let extra = status.user.unwrap().extra.unwrap();
        assert_eq!(extra["authentication.kubernetes.io/pod-uid"], [pod.metadata.uid.clone().unwrap()]);
        assert!(!scene.node.log().unwrap().contains(&token));
    }
}
