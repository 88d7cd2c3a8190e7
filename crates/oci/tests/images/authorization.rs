//! Who may pull what, and that nobody else learns the secrets.

use coracle_lifecycle::{ImageError, Images};

use crate::fixture::{CNCF, Fixture, Image, manifest_path};
use crate::server::{Answer, Asked, endless, ok, status, with_header};

const ME: (&str, &str) = ("me", "open-sesame");
const STRANGER: (&str, &str) = ("stranger", "let-me-in");
/// `me:open-sesame`
const BASIC: &str = "Basic bWU6b3Blbi1zZXNhbWU=";
const TOKEN: &str = "token-of-the-server";

async fn fixture() -> (Fixture, Image) {
    let fixture = Fixture::start().await;
    let image = Image::new(CNCF, "hello");
    image.push(&fixture.server, "app", "1");
    (fixture, image)
}

fn wants_basic(fixture: &Fixture) {
    fixture.server.guard(|asked| {
        let echo =
            format!(r#"{{"errors":[{{"code":"UNAUTHORIZED","message":"{:?}"}}]}}"#, asked.authorization);
        let refusal = || with_header(status(401, &echo), "www-authenticate", "Basic realm=\"registry\"");
        (asked.authorization.as_deref() != Some(BASIC)).then(refusal)
    });
}

/// Asks for a token, which `token` answers for requests to `/token`.
fn wants_token(fixture: &Fixture, token: impl Fn(&Asked) -> Answer + Send + Sync + 'static) {
    let challenge = format!("Bearer realm=\"http://{}/token\",service=\"registry\"", fixture.server.host());
    fixture.server.guard(move |asked| {
        if asked.path == "/token" {
            return Some(token(asked));
        }
        let refusal = || with_header(status(401, ""), "www-authenticate", &challenge);
        (asked.authorization.as_deref() != Some(&format!("Bearer {TOKEN}"))).then(refusal)
    });
}

fn token() -> Answer {
    ok(format!(r#"{{"token":"{TOKEN}"}}"#))
}

#[tokio::test]
async fn as_whom_an_image_was_pulled_is_told() {
    let (fixture, _) = fixture().await;
    let user = fixture.credential(ME);
    let pull = || async {
        let pulled = fixture.store.pull(&fixture.reference("app:1"), std::slice::from_ref(&user)).await;
        pulled.unwrap().user
    };
    assert_eq!(pull().await, None, "nobody asked");
    wants_basic(&fixture);
    assert_eq!(pull().await, Some(user.clone()));
}

fn check_denied(error: &ImageError) {
    let text = error.to_string();
    assert!(matches!(error, ImageError::Unauthorized(_)), "{error:?}");
    assert!(
        text.contains("pull access denied, repository does not exist or may require authorization"),
        "{text}"
    );
    check_discreet(&text);
}

fn check_discreet(text: &str) {
    for secret in [ME.1, STRANGER.1, TOKEN, &BASIC[6..]] {
        assert!(!text.contains(secret), "{text}");
    }
}

#[tokio::test]
async fn basic_credentials() {
    let (fixture, image) = fixture().await;
    wants_basic(&fixture);
    check_denied(&fixture.pull("app:1").await.unwrap_err());
    check_denied(&fixture.pull_as("app:1", &[STRANGER]).await.unwrap_err());
    assert_eq!(fixture.pull_as("app:1", &[ME]).await.unwrap().digest, image.digest());
}

#[tokio::test]
async fn several_candidates_are_tried_in_order() {
    let (fixture, image) = fixture().await;
    wants_basic(&fixture);
    assert_eq!(fixture.pull_as("app:1", &[STRANGER, ME]).await.unwrap().digest, image.digest());
    let tried: Vec<_> = fixture.server.asked().into_iter().filter_map(|asked| asked.authorization).collect();
    assert_eq!(tried.iter().filter(|authorization| *authorization != BASIC).count(), 1);
}

#[tokio::test]
async fn credentials_go_to_their_own_registry_only() {
    let (fixture, _) = fixture().await;
    wants_basic(&fixture);
    let mut elsewhere = fixture.credential(ME);
    elsewhere.registry = "registry.example".to_owned();
    let reference = fixture.reference("app:1");
    let error = coracle_lifecycle::Images::pull(&fixture.store, &reference, &[elsewhere]).await.unwrap_err();
    check_denied(&error);
    assert!(fixture.server.asked().iter().all(|asked| asked.authorization.is_none()));
}

#[tokio::test]
async fn a_bearer_token_with_and_without_the_right_credentials() {
    let (fixture, image) = fixture().await;
    wants_token(&fixture, |asked| {
        if asked.authorization.as_deref() == Some(BASIC) { token() } else { status(401, "open-sesame?") }
    });
    check_denied(&fixture.pull("app:1").await.unwrap_err());
    check_denied(&fixture.pull_as("app:1", &[STRANGER]).await.unwrap_err());
    assert_eq!(fixture.pull_as("app:1", &[ME]).await.unwrap().digest, image.digest());
    let asked = fixture.server.asked().into_iter().find(|asked| asked.path == "/token").unwrap();
    assert_eq!(asked.query, "scope=repository%3Aapp%3Apull&service=registry");
}

#[tokio::test]
async fn an_anonymous_token() {
    let (fixture, image) = fixture().await;
    wants_token(&fixture, |asked| if asked.authorization.is_none() { token() } else { status(401, "") });
    assert_eq!(fixture.pull("app:1").await.unwrap().digest, image.digest());
}

#[tokio::test]
async fn a_token_that_is_not_accepted() {
    let (fixture, _) = fixture().await;
    wants_token(&fixture, |_| ok(r#"{"access_token":"another"}"#));
    check_denied(&fixture.pull_as("app:1", &[ME]).await.unwrap_err());
}

#[tokio::test]
async fn a_token_server_in_trouble() {
    for (answer, expected) in [
        ((|| status(500, TOKEN)) as fn() -> Answer, "the token server: the registry answered 500"),
        (|| ok(format!("{{\"token\":\"{TOKEN}\\n\"}}")), "sent a token that fits no header"),
        (|| ok(format!("<html>{TOKEN}")), "sent no token"),
        (|| endless("{", std::sync::Arc::default()), "the answer is longer than"),
    ] {
        let (fixture, _) = fixture().await;
        wants_token(&fixture, move |_| answer());
        let text = fixture.pull_as("app:1", &[ME]).await.unwrap_err().to_string();
        assert!(text.contains(expected), "{text}");
        check_discreet(&text);
    }
}

#[tokio::test]
async fn forbidden_is_denied_and_an_unknown_challenge_too() {
    let (fixture, _) = fixture().await;
    fixture.server.status(&manifest_path("app", "1"), 403);
    check_denied(&fixture.pull_as("app:1", &[ME]).await.unwrap_err());
    fixture.server.status(&manifest_path("app", "1"), 401);
    check_denied(&fixture.pull_as("app:1", &[ME]).await.unwrap_err());
    fixture.server.route(&manifest_path("app", "1"), |_| {
        std::future::ready(with_header(status(401, ""), "www-authenticate", "Negotiate"))
    });
    check_denied(&fixture.pull_as("app:1", &[ME]).await.unwrap_err());
}

#[tokio::test]
async fn no_secret_is_on_disk() {
    let (fixture, _) = fixture().await;
    wants_basic(&fixture);
    fixture.pull_as("app:1", &[ME]).await.unwrap();
    for folder in ["references", "blobs/sha256", "unfinished"] {
        for file in fixture.files(folder) {
            let bytes = std::fs::read(fixture.directory.path().join(folder).join(&file)).unwrap();
            check_discreet(&String::from_utf8_lossy(&bytes));
            check_discreet(&file);
        }
    }
}
