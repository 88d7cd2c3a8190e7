use rcgen::KeyPair;

use super::*;

fn name(text: &str) -> ImageName {
    ImageName::parse(text).unwrap()
}

fn policy(text: &str) -> Result<Policy, PolicyError> {
    Policy::parse(text.as_bytes())
}

fn key() -> String {
    STANDARD.encode(KeyPair::generate().unwrap().public_key_pem())
}

#[test]
fn the_longest_scope_that_fits_is_taken() {
    let scopes = [
        "r.example:5000/team/app:1",
        "r.example:5000/team/app",
        "r.example:5000/team",
        "r.example:5000",
        "*.other.example",
    ];
    let all: Vec<String> =
        scopes.iter().map(|scope| format!(r#""{scope}": [{{"type": "reject"}}]"#)).collect();
    let text = |scopes: &[String]| {
        format!(
            r#"{{"default": [{{"type": "insecureAcceptAnything"}}], "transports": {{"docker": {{{}}}}}}}"#,
            scopes.join(",")
        )
    };
    for (index, _) in scopes.iter().enumerate().take(4) {
        let policy = policy(&text(&all[index..=index])).unwrap();
        assert!(policy.demand(&name("r.example:5000/team/app:1")).is_some(), "{}", scopes[index]);
        assert!(policy.demand(&name("r.example/team/app:1")).is_none());
    }
    let policy = policy(&text(&all)).unwrap();
    let rejected = ["r.example:5000/x", "a.other.example/x", "b.a.other.example/x"];
    assert!(rejected.into_iter().all(|image| policy.demand(&name(image)).is_some()));
    for other in ["other.example/x", "hello", "r.example/team/app"] {
        assert!(policy.demand(&name(other)).is_none(), "{other}");
    }
}

#[test]
fn other_keys_are_another_demand() {
    let with = |key: &str| {
        let text = format!(r#"{{"default": [{{"type": "sigstoreSigned", "keyData": "{key}"}}]}}"#);
        policy(&text).unwrap().demand(&name("hello"))
    };
    let (one, other) = (key(), key());
    assert_eq!(with(&one), with(&one));
    assert_ne!(with(&one), with(&other));
}

#[test]
fn what_cannot_be_checked_is_refused_by_name() {
    for (requirement, why) in [
        (r#"{"type": "signedBy", "keyType": "GPGKeys"}"#, "\"signedBy\""),
        (r#"{"type": "sigstoreSigned"}"#, "without a key"),
        (r#"{"type": "sigstoreSigned", "fulcio": {}}"#, "fulcio"),
        (r#"{"type": "sigstoreSigned", "keyData": "bm9uZQ=="}"#, "no public key"),
        (r#"{"type": "sigstoreSigned", "keyPath": "/nowhere/key.pub"}"#, "/nowhere/key.pub"),
    ] {
        let error = policy(&format!(r#"{{"default": [{requirement}]}}"#)).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    assert!(policy(r#"{"default": []}"#).is_err());
    assert!(policy("{}").is_err());
}

#[test]
fn signatures_are_for_references() {
    let image = name("r.example/app:1");
    let repository = Identity::MatchRepository;
    assert!(repository.fits("r.example/app", &image) && repository.fits("r.example/app:2", &image));
    assert!(!repository.fits("r.example/other", &image) && !repository.fits("", &image));
    assert!(Identity::MatchExact.fits("r.example/app:1", &image));
    assert!(!Identity::MatchExact.fits("r.example/app:2", &image));
    let moved = Identity::ExactRepository { docker_repository: "upstream.example/app".to_owned() };
    assert!(moved.fits("upstream.example/app:9", &image) && !moved.fits("r.example/app", &image));
}
