//! Images that must be signed, and what is told of those that are not.

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use coracle_lifecycle::{ImageError, Images};
use rcgen::{KeyPair, SigningKey as _};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::fixture::{CNCF, Fixture, Image, descriptor, digest, manifest_path};

/// A registry whose images must be signed by one key.
struct Scene {
    fixture: Fixture,
    image: Image,
    key: KeyPair,
    folder: TempDir,
}

impl Scene {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        fs::write(folder.path().join("key.pub"), key.public_key_pem()).unwrap();
        let path = folder.path().join("policy.json");
        let requirement = json!({"type": "sigstoreSigned", "keyPath": folder.path().join("key.pub")});
        fs::write(&path, json!({ "default": [requirement] }).to_string()).unwrap();
        let fixture = Fixture::with(|settings| settings.policy = Some(path)).await;
        let image = Image::new(CNCF, "hello");
        image.push(&fixture.server, "app", "1");
        Self { fixture, image, key, folder }
    }

    /// What cosign signs for this digest under this repository.
    fn payload(&self, digest: &str, repository: &str) -> Vec<u8> {
        let reference = self.fixture.reference(repository);
        let critical = json!({
            "identity": { "docker-reference": reference },
            "image": { "docker-manifest-digest": digest },
            "type": "cosign container image signature",
        });
        json!({ "critical": critical, "optional": null }).to_string().into_bytes()
    }

    /// Puts a signature where cosign puts it.
    fn sign(&self, key: &KeyPair, payload: &[u8]) {
        let signature = STANDARD.encode(key.sign(payload).unwrap());
        let mut layer = descriptor("application/vnd.dev.cosign.simplesigning.v1+json", payload);
        layer["annotations"] = json!({ "dev.cosignproject.cosign/signature": signature });
        self.content(payload.to_vec());
        let tag = format!("sha256-{}.sig", self.image.digest().hex());
        self.fixture.server.content(&manifest_path("app", &tag), artifact(&layer).to_string());
    }

    fn content(&self, bytes: Vec<u8>) {
        self.fixture.server.content(&format!("/v2/app/blobs/{}", digest(&bytes)), bytes);
    }

    /// Puts a bundle beside the image, and says where the list of what refers to it is.
    fn bundle(&self, bundle: &Value, list: &str) {
        let media_type = "application/vnd.dev.sigstore.bundle.v0.3+json";
        let bytes = bundle.to_string().into_bytes();
        let manifest = artifact(&descriptor(media_type, &bytes)).to_string();
        self.content(bytes);
        let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", manifest.as_bytes());
        entry["artifactType"] = json!(media_type);
        let digest = digest(manifest.as_bytes());
        self.fixture.server.content(&manifest_path("app", digest.as_str()), manifest);
        let index = json!({ "schemaVersion": 2, "manifests": [entry] });
        self.fixture.server.content(list, index.to_string());
    }

    async fn check_accepted(&self) {
        assert_eq!(self.fixture.pull("app:1").await.unwrap().digest, self.image.digest());
        assert!(self.fixture.find("app:1").await.is_some());
    }

    async fn check_refused(&self, why: &str) {
        let error = self.fixture.pull("app:1").await.unwrap_err();
        assert!(matches!(&error, ImageError::Unsigned(text) if text.contains(why)), "{error:?}");
        assert!(error.to_string().contains(&self.fixture.reference("app:1")), "{error}");
        assert_eq!(self.fixture.server.count(&self.image.module_path("app")), 0, "nothing is downloaded");
        assert_eq!(self.fixture.find("app:1").await, None);
    }
}

/// A bundle with a statement about this digest.
fn statement(key: &KeyPair, hex: &str) -> Value {
    let payload_type = "application/vnd.in-toto+json";
    let payload = json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{ "name": "", "digest": { "sha256": hex } }],
        "predicateType": "https://sigstore.dev/cosign/sign/v1",
    })
    .to_string();
    let message = format!("DSSEv1 {} {payload_type} {} {payload}", payload_type.len(), payload.len());
    let signature = STANDARD.encode(key.sign(message.as_bytes()).unwrap());
    json!({ "dsseEnvelope": {
        "payload": STANDARD.encode(payload),
        "payloadType": payload_type,
        "signatures": [{ "sig": signature }],
    }})
}

fn artifact(layer: &Value) -> Value {
    let config = descriptor("application/vnd.oci.empty.v1+json", b"{}");
    json!({ "schemaVersion": 2, "config": config, "layers": [layer] })
}

#[tokio::test]
async fn a_signature_of_cosign_is_found_and_checked() {
    let scene = Scene::new().await;
    scene.check_refused("no signature was found for sha256:").await;
    let right = scene.payload(scene.image.digest().as_str(), "app");
    scene.sign(&KeyPair::generate().unwrap(), &right);
    scene.check_refused("none of the 1 signatures").await;
    let other = scene.payload(digest(b"another").as_str(), "app");
    scene.sign(&scene.key, &other);
    scene.check_refused("none of the 1 signatures").await;
    let elsewhere = scene.payload(scene.image.digest().as_str(), "another");
    scene.sign(&scene.key, &elsewhere);
    scene.check_refused("none of the 1 signatures").await;
    scene.sign(&scene.key, &right);
    scene.check_accepted().await;
}

#[tokio::test]
async fn a_bundle_beside_the_image_is_found_and_checked() {
    let scene = Scene::new().await;
    let image = scene.image.digest();
    let list = format!("/v2/app/referrers/{image}");
    scene.bundle(&statement(&KeyPair::generate().unwrap(), image.hex()), &list);
    scene.check_refused("none of the 1 signatures").await;
    scene.bundle(&statement(&scene.key, digest(b"another").hex()), &list);
    scene.check_refused("none of the 1 signatures").await;
    scene.bundle(&statement(&scene.key, image.hex()), &list);
    scene.check_accepted().await;

    let scene = Scene::new().await;
    let signature = STANDARD.encode(scene.key.sign(&scene.image.bytes()).unwrap());
    let bundle = json!({ "messageSignature": { "signature": signature } });
    scene.bundle(&bundle, &manifest_path("app", &format!("sha256-{}", scene.image.digest().hex())));
    scene.check_accepted().await;
}

#[tokio::test]
async fn what_a_registry_says_instead_of_a_signature_is_told() {
    let scene = Scene::new().await;
    let tag = format!("sha256-{}.sig", scene.image.digest().hex());
    scene.fixture.server.status(&manifest_path("app", &tag), 500);
    scene.check_refused("500").await;
    scene.fixture.server.content(&manifest_path("app", &tag), "<html>Welcome</html>");
    scene.check_refused("malformed").await;
}

#[tokio::test]
async fn what_was_pulled_before_there_was_a_policy_is_checked_too() {
    let scene = Scene::new().await;
    let policy = scene.folder.path().join("policy.json");
    let demanding = fs::read_to_string(&policy).unwrap();
    let accepting = json!({ "default": [{ "type": "insecureAcceptAnything" }] }).to_string();
    let reopen = |scene: Scene, text: &str| {
        fs::write(&policy, text).unwrap();
        let path = Some(policy.clone());
        Scene { fixture: scene.fixture.reopen_with(|settings| settings.policy = path), ..scene }
    };
    let scene = reopen(scene, &accepting);
    scene.check_accepted().await;
    let scene = reopen(scene, &demanding);
    assert_eq!(scene.fixture.find("app:1").await, None);
    assert!(scene.fixture.pull("app:1").await.is_err());
    let payload = scene.payload(scene.image.digest().as_str(), "app");
    scene.sign(&scene.key, &payload);
    scene.check_accepted().await;
    let scene = reopen(scene, &demanding);
    assert!(scene.fixture.find("app:1").await.is_some());
    let rejecting = json!({ "default": [{ "type": "reject" }] }).to_string();
    let scene = reopen(scene, &rejecting);
    let error = scene.fixture.pull("app:1").await.unwrap_err();
    assert!(matches!(&error, ImageError::Unsigned(text) if text.contains("rejects")), "{error}");
    assert_eq!(scene.fixture.store.list().await.unwrap().len(), 1);
}
