use hyper::{Request, Response};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::*;

/// A gate whose API server allows what `allows` names, and fails where it says nothing.
struct Scene {
    gate: Gate,
    asked: watch::Receiver<Vec<Value>>,
    _tasks: JoinSet<()>,
}

impl Scene {
    fn new(allows: fn(&str) -> Option<bool>) -> Self {
        let (service, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
        let (log, asked) = watch::channel(Vec::new());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while let Some((request, reply)) = handle.next_request().await {
                let body = request.into_body().collect_bytes().await.unwrap();
                let mut review: Value = serde_json::from_slice(&body).unwrap();
                let subresource = review["spec"]["resourceAttributes"]["subresource"].clone();
                log.send_modify(|asked| asked.push(review["spec"].clone()));
                let (code, answer) = match allows(subresource.as_str().unwrap()) {
                    Some(allowed) => {
                        review["status"] = json!({ "allowed": allowed });
                        (201, review)
                    }
                    None => (500, json!({ "status": "Failure", "code": 500, "message": "broken" })),
                };
                let body = Body::from(answer.to_string().into_bytes());
                reply.send_response(Response::builder().status(code).body(body).unwrap());
            }
        });
        Self { gate: Gate::new(Client::new(service, "default"), "n1"), asked, _tasks: tasks }
    }

    async fn admit(&self, path: &str) -> Result<(), (u16, String)> {
        let user = User { name: "u".into(), groups: vec!["g".into(), "system:authenticated".into()] };
        let outcome = self.gate.admit(Some(&user), &Method::GET, path).await;
        outcome.map_err(|refusal| (refusal.code.as_u16(), refusal.text))
    }

    fn count(&self) -> usize {
        self.asked.borrow().len()
    }
}

#[tokio::test]
async fn nobody_is_refused_without_a_question() {
    let scene = Scene::new(|_| Some(true));
    for path in ["/healthz", "/containerLogs/n/p/c", "/nowhere"] {
        let refusal = scene.gate.admit(None, &Method::GET, path).await.unwrap_err();
        assert_eq!((refusal.code.as_u16(), refusal.text.as_str()), (401, "Unauthorized"));
    }
    assert_eq!(scene.count(), 0);
}

#[tokio::test]
async fn any_one_subresource_suffices() {
    let scene = Scene::new(|subresource| Some(subresource == "proxy"));
    assert_eq!(scene.admit("/healthz").await, Ok(()));
    assert_eq!(scene.count(), 2);
    let asked = scene.asked.borrow()[1].clone();
    assert_eq!(
        asked,
        json!({
            "user": "u",
            "groups": ["g", "system:authenticated"],
            "resourceAttributes": {
                "verb": "get", "version": "v1", "resource": "nodes", "subresource": "proxy", "name": "n1",
            },
        })
    );
}

#[tokio::test]
async fn the_denied_are_told_what_they_lack() {
    let scene = Scene::new(|_| Some(false));
    let text = "Forbidden (user=u, verb=get, resource=nodes, subresource(s)=[pods proxy])";
    assert_eq!(scene.admit("/pods").await, Err((403, text.to_owned())));
}

#[tokio::test]
async fn a_failed_question_is_an_error_and_not_remembered() {
    let scene = Scene::new(|_| None);
    let text = "Authorization error (user=u, verb=get, resource=nodes, subresource=stats)";
    assert_eq!(scene.admit("/stats").await, Err((500, text.to_owned())));
    assert_eq!(scene.admit("/stats").await, Err((500, text.to_owned())));
    assert!(scene.count() >= 2);
}

#[tokio::test(start_paused = true)]
async fn permissions_are_remembered_longer_than_refusals() {
    let scene = Scene::new(|subresource| Some(subresource == "stats"));
    let ask_again_after = async |path: &str, seconds: u64| {
        let before = scene.count();
        let _ = scene.admit(path).await;
        assert!(scene.count() <= before + 1);
        tokio::time::advance(Duration::from_secs(seconds)).await;
        let between = scene.count();
        let _ = scene.admit(path).await;
        scene.count() > between
    };
    assert!(!ask_again_after("/stats", 299).await);
    assert!(ask_again_after("/stats", 301).await);
    assert!(!ask_again_after("/metrics", 29).await);
    assert!(ask_again_after("/metrics", 31).await);
}

#[tokio::test]
async fn what_is_remembered_is_bounded() {
    let scene = Scene::new(|_| Some(true));
    for number in 0..REMEMBERED + 10 {
        let user = User { name: format!("u{number}"), groups: Vec::new() };
        scene.gate.admit(Some(&user), &Method::GET, "/stats").await.unwrap();
        assert!(scene.gate.answers.lock().len() <= REMEMBERED);
    }
}
