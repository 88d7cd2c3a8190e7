//! The volume by which every ordinary pod reaches the API server.

use std::collections::BTreeMap;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::api::PostParams;
use kube::{Api, ResourceExt};

use crate::scene::Scene;
use crate::{guests, manifests, states};

const DIRECTORY: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// What a guest printed of each file it was told to show.
fn files(log: &str) -> BTreeMap<&str, String> {
    let parts = log.split("file ").filter_map(|part| part.split_once('\n'));
    parts
        .map(|(path, content)| (path.rsplit('/').next().unwrap_or(path), content.trim().to_owned()))
        .collect()
}

#[tokio::test]
async fn a_guest_finds_its_token_authority_and_namespace() {
    let scene = Scene::new("tokens").await.unwrap();
    for guest in ["files-rust", "files-rust-p2"] {
        let image = guests::image(guest).await.unwrap();
        let paths = ["", "/ca.crt", "/namespace", "/token"].map(|name| format!("{DIRECTORY}{name}"));
        let spec = manifests::once(&image, &paths.each_ref().map(String::as_str));
        let pod = scene.run_until(guest, spec, states::has_ended).await.unwrap();
        assert_eq!(states::exit(&pod), Some((0, "Completed")), "{guest}");
        let log = scene.logs(guest, &[]).await.unwrap();
        for name in ["ca.crt", "namespace", "token"] {
            assert!(log.contains(&format!("directory {DIRECTORY} {name}\n")), "{log}");
        }
        let files = files(&log);
        assert_eq!(files["namespace"], scene.namespace);
        let authority = scene.cluster.client_certificate("tokens-user", &[]).unwrap().authority;
        assert_eq!(files["ca.crt"], std::fs::read_to_string(authority).unwrap().trim());
        review(&scene, &files["token"], guest, &pod.uid().unwrap()).await;
    }
}

/// The API server takes the token as that of the pod's service account, bound to this pod.
async fn review(scene: &Scene<'_>, token: &str, pod: &str, uid: &str) {
    let spec = TokenReviewSpec { token: token.to_owned(), audiences: None };
    let review = TokenReview { spec, ..TokenReview::default() };
    let api = Api::<TokenReview>::all(scene.client.clone());
    let status = api.create(&PostParams::default(), &review).await.unwrap().status.unwrap();
    assert_eq!(status.authenticated, Some(true), "{status:?}");
    let user = status.user.unwrap();
    assert_eq!(user.username, Some(format!("system:serviceaccount:{}:default", scene.namespace)));
    let extra = user.extra.unwrap();
    assert_eq!(extra["authentication.kubernetes.io/pod-name"], [pod]);
    assert_eq!(extra["authentication.kubernetes.io/pod-uid"], [uid]);
}
