use std::time::Duration;

use coracle_lifecycle::ImageError;
use serde_json::{Value, json};

use crate::pods::testing::{SECRET, Scene, container, pod};

fn with_policy(policy: &str) -> Value {
    let mut pod = pod("Always", "app");
    pod["spec"]["containers"][0]["imagePullPolicy"] = json!(policy);
    pod
}

#[tokio::test(start_paused = true)]
async fn a_pull_that_fails_backs_off_and_comes_right() {
    let scene = Scene::new().await;
    let missing = ImageError::NotFound("app: no such image".to_owned());
    scene.images.fail("app", missing);
    scene.create("p", pod("Always", "app"));
    let shown = scene.waits("p", "ErrImagePull").await;
    assert_eq!(container(&shown)["state"]["waiting"]["message"], "app: no such image");
    scene.waits("p", "ImagePullBackOff").await;
    let began = tokio::time::Instant::now();
    scene.images.change(|images| images.failures.clear());
    let shown = scene.phase("p", "Running").await;
    assert_eq!(container(&shown)["restartCount"], 0);
    assert!(began.elapsed() >= Duration::from_secs(8), "it waited for its back-off");
    assert_eq!(scene.images.state.borrow().pulls.len(), 2);
    assert_eq!(scene.event("BackOff").await, "Back-off pulling image \"app\"");
}

#[tokio::test(start_paused = true)]
async fn pull_policies_are_kept() {
    let scene = Scene::new().await;
    scene.create("absent", with_policy("Never"));
    scene.waits("absent", "ErrImageNeverPull").await;
    assert!(scene.images.state.borrow().pulls.is_empty());
    scene.images.add("app");
    scene.create("never", with_policy("Never"));
    scene.phase("never", "Running").await;
    scene.create("lazy", with_policy("IfNotPresent"));
    scene.phase("lazy", "Running").await;
    assert!(scene.images.state.borrow().pulls.is_empty());
    scene.create("always", with_policy("Always"));
    scene.phase("always", "Running").await;
    assert_eq!(scene.images.state.borrow().pulls.len(), 1);
    scene.phase("absent", "Running").await;
}

#[tokio::test(start_paused = true)]
async fn pull_secrets_come_along_and_their_absence_is_told() {
    let scene = Scene::new().await;
    let mut with_secret = pod("Always", "app");
    with_secret["spec"]["imagePullSecrets"] = json!([{ "name": "registry" }]);
    scene.create("p", with_secret.clone());
    scene.phase("p", "Running").await;
    assert!(scene.event("FailedToRetrieveImagePullSecret").await.contains("(registry)"));
    let config = r#"{"auths":{"r":{"username":"ann","password":"x"}}}"#;
    let config = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, config);
    scene.api.put(SECRET, json!({ "metadata": {}, "data": { ".dockerconfigjson": config } }));
    scene.create("q", with_secret);
    scene.phase("q", "Running").await;
    let pulls = scene.images.state.borrow().pulls.clone();
    assert_eq!(pulls, [("app".to_owned(), vec![]), ("app".to_owned(), vec!["ann".to_owned()])]);
}

#[tokio::test(start_paused = true)]
async fn an_image_that_is_no_program_ends_its_pod() {
    let scene = Scene::new().await;
    scene.create("p", pod("Never", "unknown-import"));
    let shown = scene.phase("p", "Failed").await;
    let ended = &container(&shown)["state"]["terminated"];
    let told = (&ended["exitCode"], &ended["reason"], &ended["message"], &ended["startedAt"]);
    let began = json!("1970-01-01T00:00:00Z");
    assert_eq!(told, (&json!(128), &json!("StartError"), &json!("unknown import env.foo"), &began));
    assert_eq!(scene.event("Failed").await, "Error: unknown import env.foo");
    assert!(scene.runtime.state.borrow().runs.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_program_that_is_too_expensive_to_compile_ends_its_pod_or_backs_off() {
    let scene = Scene::new().await;
    scene.create("once", pod("Never", "too-large"));
    let shown = scene.phase("once", "Failed").await;
    let ended = &container(&shown)["state"]["terminated"];
    assert_eq!(
        (&ended["reason"], &ended["message"]),
        (&json!("StartError"), &json!("compiling took too much"))
    );
    scene.create("always", pod("Always", "too-large"));
    scene.waits("always", "RunContainerError").await;
    scene.waits("always", "CrashLoopBackOff").await;
}

#[tokio::test(start_paused = true)]
async fn an_invalid_name_says_so() {
    let scene = Scene::new().await;
    let invalid = ImageError::InvalidName("no image name".to_owned());
    scene.images.fail("app", invalid);
    scene.create("p", pod("Always", "app"));
    scene.waits("p", "InvalidImageName").await;
}

#[tokio::test(start_paused = true)]
async fn an_image_is_for_pods_that_could_pull_it() {
    let scene = Scene::new().await;
    let config = r#"{"auths":{"r":{"username":"ann","password":"x"}}}"#;
    let config = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, config);
    scene.api.put(SECRET, json!({ "metadata": {}, "data": { ".dockerconfigjson": config } }));
    let with_secret = |mut pod: Value| {
        pod["spec"]["imagePullSecrets"] = json!([{ "name": "registry" }]);
        pod
    };
    scene.create("owner", with_secret(with_policy("IfNotPresent")));
    scene.phase("owner", "Running").await;
    scene.images.add("app");
    scene.create("owner-again", with_secret(with_policy("Never")));
    scene.phase("owner-again", "Running").await;
    assert_eq!(scene.images.state.borrow().pulls.len(), 1);
    scene.create("stranger", with_policy("Never"));
    let shown = scene.waits("stranger", "ErrImageNeverPull").await;
    let message = container(&shown)["state"]["waiting"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("does not have the credentials"), "{message}");
    scene.images.fail("app", ImageError::Unauthorized("app: who are you?".to_owned()));
    scene.create("guest", with_policy("IfNotPresent"));
    scene.waits("guest", "ErrImagePull").await;
}
