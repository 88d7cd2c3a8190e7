use serde_json::json;

use super::*;
use crate::{Digest, Host, ImageContent, ImageKind, ImageModule};

const NOW: Timestamp = Timestamp::constant(1_767_225_600, 0);

fn pod(image: &str) -> Arc<Pod> {
    let pod = json!({"metadata": {"uid": "u"}, "spec": {"containers": [{"name": "app", "image": image}]}});
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn observed() -> Observed {
    Observed::new(pod("app:1"), Arc::new(Host { runtime: "test".to_owned(), addresses: Vec::new() }))
}

fn fetch() -> Event {
    Event::Began(Action::Fetch { container: "app".to_owned() })
}

/// Both ends that a fetch can have.
fn ends() -> [Event; 2] {
    let digest = Digest::parse(&format!("sha256:{}", "0".repeat(64))).unwrap();
    let module = ImageModule { digest: digest.clone(), path: "/m".into(), name: "m".to_owned() };
    let (reference, repo_digest) = ("r/app:1".to_owned(), "r/app@0".to_owned());
    let image =
        LocalImage { digest, reference, repo_digest, content: ImageContent::Program(module), size: 1 };
    let (container, message) = ("app".to_owned(), "no".to_owned());
    [
        Event::Fetched {
            container: container.clone(),
            image: Box::new(image),
            kind: ImageKind(String::new()),
        },
        Event::FetchFailed { container, reason: Waiting::ErrImagePull, message },
    ]
}

#[test]
fn an_image_that_is_no_longer_wished_for_is_not_kept_whatever_became_of_it() {
    for end in ends() {
        let mut observed = observed();
        for event in [fetch(), Event::Wished(pod("app:2")), end] {
            apply(&mut observed, event, NOW);
        }
        let record = &observed.containers[0];
        let known = (&record.image, record.failure.is_some(), record.misfetched);
        assert_eq!(known, (&ImageState::Unknown, false, false));
    }
}

#[test]
fn the_end_of_a_fetch_that_was_given_up_is_no_news() {
    for end in ends() {
        let mut observed = observed();
        apply(&mut observed, end, NOW);
        assert_eq!(observed.containers, self::observed().containers);
    }
}

#[test]
fn a_pod_is_busy_with_what_it_has_begun() {
    let busy_with = |change: fn(&mut Observed)| {
        let mut observed = observed();
        change(&mut observed);
        observed.is_busy()
    };
    assert!(!busy_with(|_| {}));
    assert!(busy_with(|observed| observed.volumes = Volumes::Mounting));
    assert!(busy_with(|observed| observed.volumes = Volumes::Unmounting));
    assert!(busy_with(|observed| observed.deletion = Deletion::InFlight));
    assert!(busy_with(|observed| observed.containers[0].state = ContainerState::Starting));
    assert!(busy_with(|observed| observed.containers[0].image = ImageState::Fetching));
}
