//! Registries as `hosts.toml` configures them: mirrors, certificates, and proxies.

use std::fs;
use std::path::{Path, PathBuf};

use coracle_lifecycle::{ImageError, Images};
use coracle_oci::Proxies;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;

use crate::fixture::{CNCF, Fixture, Image, manifest_path};
use crate::server::{Server, TlsFiles, ok, status, with_header};

/// A registry, a mirror, and what is configured for the registry.
struct Scene {
    fixture: Fixture,
    mirror: Server,
    image: Image,
    _configuration: TempDir,
}

impl Scene {
    /// `configure` makes the text of `hosts.toml` from the mirror's address.
    async fn new(configure: impl FnOnce(&str) -> String) -> Self {
        let mirror = Server::start().await;
        let configuration = tempfile::tempdir().unwrap();
        let text = configure(&format!("http://{}", mirror.host()));
        let directory = configuration.path().to_owned();
        let fixture = Fixture::with(|settings| {
            write(&directory, &settings.insecure_registries[0], &text);
            settings.registry_directory = Some(directory);
        })
        .await;
        let image = Image::new(CNCF, "hello");
        image.push(&fixture.server, "app", "1");
        Self { fixture, mirror, image, _configuration: configuration }
    }

    async fn mirrored() -> Self {
        let scene = Self::new(|mirror| format!("[host.\"{mirror}\"]")).await;
        scene.image.push(&scene.mirror, "app", "1");
        scene
    }

    async fn check_pulled(&self) {
        assert_eq!(self.fixture.pull("app:1").await.unwrap().digest, self.image.digest());
    }
}

fn write(directory: &Path, registry: &str, text: &str) {
    let folder = directory.join(registry);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("hosts.toml"), text).unwrap();
}

#[tokio::test]
async fn a_mirror_is_asked_first_and_told_for_whom() {
    let scene = Scene::mirrored().await;
    scene.check_pulled().await;
    assert!(scene.fixture.server.asked().is_empty());
    let namespace = format!("ns={}", scene.fixture.server.host());
    assert!(scene.mirror.asked().iter().all(|asked| asked.query == namespace));
    assert_eq!(scene.mirror.asked().len(), 3);
}

#[tokio::test]
async fn what_a_mirror_does_not_have_comes_from_the_registry() {
    let module = |scene: &Scene| scene.image.module_path("app");
    let check = async |damage: &dyn Fn(&Scene)| {
        let scene = Scene::mirrored().await;
        damage(&scene);
        scene.check_pulled().await;
        assert!(!scene.fixture.server.asked().is_empty());
    };
    for code in [401, 403, 404, 500, 503] {
        check(&|scene| scene.mirror.status(&manifest_path("app", "1"), code)).await;
        check(&|scene| scene.mirror.status(&module(scene), code)).await;
    }
    check(&|scene| scene.mirror.content(&manifest_path("app", "1"), "<html>Welcome</html>")).await;
    check(&|scene| scene.mirror.content(&module(scene), "another module")).await;
    let nobody = Scene::new(|_| "[host.\"http://127.0.0.1:1\"]".to_owned()).await;
    nobody.check_pulled().await;
}

#[tokio::test]
async fn a_mirror_that_may_not_resolve_is_asked_by_digest_only() {
    let scene = Scene::new(|mirror| format!("[host.\"{mirror}\"]\ncapabilities = [\"pull\"]")).await;
    scene.image.push(&scene.mirror, "app", "1");
    // A tag of the mirror's own, which leads elsewhere.
    scene.mirror.content(&manifest_path("app", "1"), Image::new(CNCF, "other").bytes());
    scene.check_pulled().await;
    assert_eq!(scene.fixture.server.asked().len(), 1);
    assert_eq!(scene.mirror.count(&scene.image.module_path("app")), 1);
}

#[tokio::test]
async fn a_mirror_does_not_learn_the_registrys_secrets() {
    let scene = Scene::mirrored().await;
    scene.mirror.guard(|_| Some(with_header(status(401, ""), "www-authenticate", "Basic realm=\"mirror\"")));
    let pulled = scene.fixture.pull_as("app:1", &[("me", "open-sesame")]).await.unwrap();
    assert_eq!(pulled.digest, scene.image.digest());
    assert!(scene.mirror.asked().iter().all(|asked| asked.authorization.is_none()));
}

#[tokio::test]
async fn a_configuration_that_is_wrong_is_named() {
    let scene = Scene::new(|_| "server = 1".to_owned()).await;
    let error = scene.fixture.pull("app:1").await.unwrap_err();
    assert!(
        matches!(&error, ImageError::Storage(text) if text.contains("hosts.toml: invalid type")),
        "{error}"
    );
    let scene = Scene::new(|mirror| format!("[host.\"{mirror}\"]\nca = \"missing.pem\"")).await;
    let error = scene.fixture.pull("app:1").await.unwrap_err();
    assert!(error.to_string().contains("missing.pem cannot be read"), "{error}");
}

/// A registry with TLS whose certificate is signed by an authority of its own, and a client that it knows.
struct Secure {
    server: Server,
    folder: TempDir,
}

impl Secure {
    async fn start(asks_for_client: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap();
        let issue = |name: &str, kind: &str| -> (PathBuf, PathBuf) {
            let key = KeyPair::generate().unwrap();
            let certificate =
                CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
            let files = ["crt", "key"].map(|extension| folder.path().join(format!("{kind}.{extension}")));
            fs::write(&files[0], certificate.pem()).unwrap();
            fs::write(&files[1], key.serialize_pem()).unwrap();
            files.into()
        };
        let (certificate, key) = issue("localhost", "server");
        issue("client", "client");
        let ca = folder.path().join("ca.crt");
        fs::write(&ca, authority.pem()).unwrap();
        let clients = asks_for_client.then(|| ca.clone());
        let server = Server::start_with_tls(&TlsFiles { certificate, key, clients }).await;
        Self { server, folder }
    }

    /// What comes of a pull from it when this is configured.
    async fn pull(&self, text: &str) -> Result<(), ImageError> {
        let registry = format!("localhost:{}", self.server.address.port());
        write(self.folder.path(), &registry, text);
        let directory = self.folder.path().to_owned();
        let fixture = Fixture::with(|settings| settings.registry_directory = Some(directory)).await;
        let image = Image::new(CNCF, "hello");
        image.push(&self.server, "app", "1");
        fixture.store.pull(&format!("{registry}/app:1"), &[]).await.map(drop)
    }
}

#[tokio::test]
async fn an_authority_of_its_own_is_trusted_when_it_is_configured() {
    let secure = Secure::start(false).await;
    let error = secure.pull("").await.unwrap_err();
    assert!(matches!(error, ImageError::RegistryUnavailable(_)), "{error}");
    secure.pull("ca = \"../ca.crt\"").await.unwrap();
    secure.pull("skip_verify = true").await.unwrap();
}

#[tokio::test]
async fn a_client_certificate_is_shown_when_it_is_configured() {
    let secure = Secure::start(true).await;
    secure.pull("ca = \"../ca.crt\"").await.unwrap_err();
    let client = "client = [[\"../client.crt\", \"../client.key\"]]";
    secure.pull(&format!("ca = \"../ca.crt\"\n{client}")).await.unwrap();
}

#[tokio::test]
async fn registries_are_reached_through_a_proxy_but_for_those_of_this_machine() {
    let proxy = Server::start().await;
    let image = Image::new(CNCF, "hello");
    image.push(&proxy, "app", "1");
    let through = |http: String| Proxies { http: Some(http), ..Proxies::default() };
    let address = format!("http://{}", proxy.host());
    let fixture = Fixture::with(|settings| {
        settings.insecure_registries.push("registry.example".to_owned());
        settings.proxies = through(address);
    })
    .await;
    fixture.store.pull("registry.example/app:1", &[]).await.unwrap();
    assert_eq!(proxy.asked().len(), 3);

    let fixture = Fixture::with(|settings| settings.proxies = through("http://127.0.0.1:1".to_owned())).await;
    image.push(&fixture.server, "app", "1");
    fixture.pull("app:1").await.unwrap();
}

#[tokio::test]
async fn a_download_goes_on_where_it_was_broken_off() {
    let fixture = Fixture::start().await;
    let image = Image::new(CNCF, "a module of some length");
    image.push(&fixture.server, "app", "1");
    let (path, module) = (image.module_path("app"), image.module.clone());
    let sent = module.clone();
    fixture.server.route(&path, move |asked| {
        std::future::ready(match asked.range.as_deref() {
            None => crate::server::cut_off(sent.slice(..10)),
            Some("bytes=10-") => partial(&sent[10..12], "bytes 10-11/31"),
            Some(_) => partial(&sent[12..], "bytes 12-30/31"),
        })
    });
    let pulled = fixture.pull("app:1").await.unwrap();
    assert_eq!(fs::read(&pulled.program().unwrap().path).unwrap(), module);
    let asked = fixture.server.asked();
    let ranges: Vec<_> = asked.iter().filter_map(|asked| asked.range.as_deref()).collect();
    assert_eq!(ranges.first(), Some(&"bytes=10-"));
}

fn partial(bytes: &[u8], range: &str) -> crate::server::Answer {
    let mut answer = with_header(ok(bytes.to_vec()), "content-range", range);
    *answer.status_mut() = hyper::StatusCode::PARTIAL_CONTENT;
    answer
}

#[tokio::test]
async fn a_server_that_sends_another_part_than_was_asked_for_is_refused() {
    let fixture = Fixture::start().await;
    let image = Image::new(CNCF, "a module of some length");
    image.push(&fixture.server, "app", "1");
    let (path, module) = (image.module_path("app"), image.module.clone());
    fixture.server.route(&path, move |asked| {
        std::future::ready(match asked.range {
            None => crate::server::cut_off(module.slice(..10)),
            Some(_) => partial(&module[9..], "bytes 9-30/31"),
        })
    });
    let error = fixture.pull("app:1").await.unwrap_err();
    assert!(matches!(&error, ImageError::Corrupt(text) if text.contains("another byte")), "{error}");
}
