use coracle_lifecycle::{ImageContent, ImageModule};
use serde_json::{Value, json};

use super::*;

fn image(reference: &str, mark: u8) -> LocalImage {
    let digest = Digest::parse(&format!("sha256:{}", format!("{mark:02x}").repeat(32))).unwrap();
    LocalImage {
        reference: reference.to_owned(),
        repo_digest: format!("{}@{digest}", reference.split(':').next().unwrap()),
        content: ImageContent::Program(ImageModule {
            digest: digest.clone(),
            path: "m.wasm".into(),
            name: "m".to_owned(),
        }),
        digest,
        size: 10,
    }
}

fn used(pod: Value, status: Value) -> Used {
    let mut used = Used::default();
    let (pod, status): (Pod, PodStatus) =
        (serde_json::from_value(pod).unwrap(), serde_json::from_value(status).unwrap());
    used.add(&pod, &status);
    used
}

fn pod(image: &str) -> Value {
    json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": image}]}})
}

#[test]
fn an_image_is_used_by_pods_that_wait_for_it_and_that_run_it() {
    let hello = image("docker.io/library/hello:latest", 1);
    assert!(used(pod("hello"), json!({})).has(&hello));
    assert!(!used(pod("hello:2"), json!({"phase": "Running"})).has(&hello));
    // Its tag has moved on since the container began.
    let status = json!({"phase": "Running", "containerStatuses": [{
        "name": "c", "image": "x", "imageID": hello.repo_digest, "ready": true, "restartCount": 0,
    }]});
    assert!(used(pod("other"), status.clone()).has(&hello));
    let debugged = json!({"metadata": {"name": "p"}, "spec": {
        "containers": [{"name": "c", "image": "other"}],
        "ephemeralContainers": [{"name": "d", "image": "hello"}],
    }});
    assert!(used(debugged, json!({"phase": "Running"})).has(&hello));
    let debugging = json!({"phase": "Running", "ephemeralContainerStatuses": status["containerStatuses"]});
    assert!(used(pod("other"), debugging).has(&hello));
    let ended = json!({"phase": "Succeeded", "containerStatuses": status["containerStatuses"]});
    assert!(!used(pod("hello"), ended).has(&hello));
}

#[test]
fn when_an_image_was_found_and_used_is_remembered() {
    let at = |second| Timestamp::from_second(second).unwrap();
    let images = [image("r.example/a:1", 1), image("r.example/a:2", 1), image("r.example/b:1", 2)];
    let mut known = HashMap::new();
    let second_tag = used(pod("r.example/a:2"), json!({}));
    let first = held(&images, &second_tag, &mut known, at(1));
    assert_eq!(first.len(), 2);
    let later = held(&images, &second_tag, &mut known, at(5));
    let find = |held: &[HeldImage], image: &LocalImage| {
        held.iter().find(|held| held.digest == image.digest).unwrap().clone()
    };
    let one = find(&later, &images[0]);
    assert_eq!((one.found, one.used, one.is_in_use), (at(1), at(5), true));
    let other = find(&later, &images[2]);
    assert_eq!((other.found, other.used, other.is_in_use), (at(1), at(1), false));
    held(&images[..1], &Used::default(), &mut known, at(6));
    assert_eq!(known.len(), 1);
}
