use coracle_lifecycle::{Digest, ImageConfig};
use serde::{Deserialize, Deserializer};
use thiserror::Error;

use crate::digest::digest_of;
use crate::manifest::complaint;

/// Why an image's configuration cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum ConfigError {
    #[error("the image's configuration is malformed: {0}")]
    Malformed(String),
    #[error("the image's configuration has {diffs} layers, its manifest {layers}")]
    Layers { diffs: usize, layers: usize },
}

/// What the configuration of an image with files says
/// (<https://github.com/opencontainers/image-spec/blob/main/config.md>).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Configuration {
    /// What a container is begun with.
    pub(crate) begin: ImageConfig,
    /// The layers, the lowest first.
    pub(crate) layers: Vec<Layer>,
}

/// A layer by what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layer {
    /// The digest of its archive, not compressed.
    pub(crate) diff: Digest,
    /// What it makes together with all layers below.
    pub(crate) chain: Digest,
}

/// Reads the configuration of an image whose manifest names so many layers.
pub(crate) fn read(bytes: &[u8], layers: usize) -> Result<Configuration, ConfigError> {
    let raw: Raw =
        serde_json::from_slice(bytes).map_err(|error| ConfigError::Malformed(complaint(&error)))?;
    if raw.rootfs.diff_ids.len() != layers {
        return Err(ConfigError::Layers { diffs: raw.rootfs.diff_ids.len(), layers });
    }
    Ok(Configuration { begin: begin(raw.config), layers: chain(&raw.rootfs.diff_ids)? })
}

#[derive(Deserialize)]
struct Raw {
    #[serde(default, deserialize_with = "or_default")]
    config: RawConfig,
    rootfs: RootFs,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct RawConfig {
    #[serde(deserialize_with = "or_default")]
    entrypoint: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    cmd: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    env: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    working_dir: String,
    #[serde(deserialize_with = "or_default")]
    user: String,
}

#[derive(Deserialize)]
struct RootFs {
    #[serde(default, deserialize_with = "or_default")]
    diff_ids: Vec<String>,
}

/// Builders write `null` for what is empty.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Option::deserialize(from).map(Option::unwrap_or_default)
}

fn begin(raw: RawConfig) -> ImageConfig {
    let variable = |text: String| match text.split_once('=') {
        Some((name, value)) => (name.to_owned(), value.to_owned()),
        None => (text, String::new()),
    };
    let given = |text: String| Some(text).filter(|text| !text.is_empty());
    ImageConfig {
        entrypoint: raw.entrypoint,
        command: raw.cmd,
        env: raw.env.into_iter().map(variable).collect(),
        working_directory: given(raw.working_dir),
        user: given(raw.user),
    }
}

/// The chain ids: each the digest of the one below and the layer's own.
fn chain(diffs: &[String]) -> Result<Vec<Layer>, ConfigError> {
    let mut layers: Vec<Layer> = Vec::with_capacity(diffs.len());
    for diff in diffs {
        let diff = Digest::parse(diff).map_err(|error| ConfigError::Malformed(error.to_string()))?;
        let chain = layers.last().map(|below| digest_of(format!("{} {diff}", below.chain).as_bytes()));
        layers.push(Layer { chain: chain.unwrap_or_else(|| diff.clone()), diff });
    }
    Ok(layers)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const ONE: &str = "sha256:1111111111111111111111111111111111111111111111111111111111111111";
    const TWO: &str = "sha256:2222222222222222222222222222222222222222222222222222222222222222";

    fn result(document: &Value, layers: usize) -> Result<Configuration, ConfigError> {
        read(document.to_string().as_bytes(), layers)
    }

    #[test]
    fn a_configuration_of_docker_is_read() {
        let document = json!({
            "architecture": "wasm",
            "os": "wasi",
            "config": {
                "Entrypoint": ["/app.wasm"],
                "Cmd": null,
                "Env": ["PATH=/bin", "EMPTY=", "ODD", "A=b=c"],
                "WorkingDir": "/srv",
                "User": "1000",
                "Labels": { "x": "y" },
            },
            "rootfs": { "type": "layers", "diff_ids": [ONE, TWO] },
            "history": [{}],
        });
        let Configuration { begin, layers } = result(&document, 2).unwrap();
        assert_eq!((begin.entrypoint, begin.command), (vec!["/app.wasm".to_owned()], vec![]));
        let expected = [("PATH", "/bin"), ("EMPTY", ""), ("ODD", ""), ("A", "b=c")];
        assert_eq!(begin.env, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!((begin.working_directory.as_deref(), begin.user.as_deref()), (Some("/srv"), Some("1000")));
        assert_eq!(layers[0].chain, layers[0].diff);
        assert_eq!(layers[1].chain, digest_of(format!("{ONE} {TWO}").as_bytes()));
    }

    #[test]
    fn what_is_missing_is_empty() {
        for config in [json!(null), json!({})] {
            let document = json!({ "config": config, "rootfs": { "diff_ids": [ONE] } });
            assert_eq!(result(&document, 1).unwrap().begin, ImageConfig::default());
        }
        assert_eq!(result(&json!({ "rootfs": { "diff_ids": null } }), 0).unwrap().layers, []);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let other = json!({ "rootfs": { "diff_ids": [ONE] } });
        assert_eq!(result(&other, 2), Err(ConfigError::Layers { diffs: 1, layers: 2 }));
        for document in [
            json!({}),
            json!([]),
            json!({ "rootfs": {} , "config": 1 }),
            json!({ "rootfs": { "diff_ids": ["../../etc"] } }),
            json!({ "rootfs": { "diff_ids": ["sha512:00"] } }),
        ] {
            assert!(matches!(
                result(&document, 1),
                Err(ConfigError::Malformed(_) | ConfigError::Layers { .. })
            ));
        }
    }
}
