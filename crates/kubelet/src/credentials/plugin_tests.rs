use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use tempfile::TempDir;

use super::*;

const CONFIG: &str = r#"
apiVersion: kubelet.config.k8s.io/v1
kind: CredentialProviderConfig
providers:
  - name: helper
    matchImages: ["*.registry.example", "registry.example:5000/team"]
    defaultCacheDuration: "12h0m0s"
    apiVersion: credentialprovider.kubelet.k8s.io/v1
    args: ["get"]
    env: [{name: WHO, value: ann}]
"#;

/// A plugin that is this script.
fn plugin(script: &str) -> (TempDir, Plugin) {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("helper");
    fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o700)).unwrap();
    let plugin = parse(CONFIG, folder.path()).unwrap().remove(0);
    (folder, plugin)
}

fn answer(key_type: &str, duration: &str) -> String {
    format!(
        r#"{{"kind":"CredentialProviderResponse","apiVersion":"{VERSION}","cacheKeyType":"{key_type}",
        "cacheDuration":"{duration}","auth":{{"*.registry.example":{{"username":"'$WHO'","password":"'$1'"}}}}}}"#
    )
}

#[tokio::test]
async fn a_plugin_is_asked_for_the_images_it_knows() {
    let (folder, plugin) = plugin(&format!("cd ${{0%/*}}; cat > asked; echo '{}'", answer("Image", "0")));
    let expected = Credential {
        registry: "*.registry.example".to_owned(),
        username: "ann".to_owned(),
        password: "get".to_owned(),
    };
    assert_eq!(plugin.credentials("a.registry.example/app:1").await, [expected]);
    let asked: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.path().join("asked")).unwrap()).unwrap();
    let wanted = serde_json::json!({
        "apiVersion": VERSION,
        "kind": "CredentialProviderRequest",
        "image": "a.registry.example/app",
    });
    assert_eq!(asked, wanted);
    for other in ["registry.example/app", "registry.example:5000/other/app", "app"] {
        assert_eq!(plugin.credentials(other).await, [], "{other}");
    }
}

#[tokio::test]
async fn an_answer_is_kept_for_what_it_is_for_and_as_long_as_it_says() {
    for (key_type, duration, expected) in [
        ("Image", "1h", 2),
        ("Registry", "1h", 2),
        ("Global", "1h", 1),
        ("Global", "0", 3),
        ("Image", "0s", 3),
    ] {
        let script = format!("echo x >> ${{0%/*}}/count; echo '{}'", answer(key_type, duration));
        let (folder, plugin) = plugin(&script);
        for image in ["a.registry.example/a", "a.registry.example/a:2", "b.registry.example/a"] {
            assert_eq!(plugin.credentials(image).await.len(), 1);
        }
        let count = fs::read_to_string(folder.path().join("count")).unwrap().lines().count();
        assert_eq!(count, expected, "{key_type} {duration}");
    }
}

#[tokio::test]
async fn a_plugin_that_fails_has_no_credentials() {
    for script in ["exit 1", "echo nonsense", "echo '{}'", "yes secret | head -c 3000000"] {
        assert_eq!(plugin(script).1.credentials("a.registry.example/a").await, [], "{script}");
    }
}

#[test]
fn a_configuration_that_is_wrong_is_named() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("helper"), "").unwrap();
    for (from, to, why) in [
        ("CredentialProviderConfig", "Pod", "of kind \"Pod\""),
        (
            "credentialprovider.kubelet.k8s.io/v1",
            "credentialprovider.kubelet.k8s.io/v1beta1",
            "is not credential",
        ),
        ("name: helper", "name: other", "other does not exist"),
        ("name: helper", "name: ../helper", "no name of a program"),
        ("\"12h0m0s\"", "often", "\"often\" is no duration"),
        ("args:", "tokenAttributes: {}\n    args:", "tokenAttributes"),
    ] {
        let error = parse(&CONFIG.replacen(from, to, 1), folder.path()).map(|_| ()).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
}
