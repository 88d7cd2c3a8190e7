//! The part of the command line that is about images.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use coracle_kubelet::{NodeCredentials, PullSettings};
use coracle_lifecycle::{CollectionRules, Images};
use coracle_oci::{OpenError, Proxies, Store};
use jiff::SignedDuration;

use crate::settings::{UsageError, duration, given, wrong};

/// The flags about images; those that the kubelet or containerd have bear their names.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ImageFlags {
    /// The directory with a folder for each registry and containerd's hosts.toml in it: mirrors, authorities, client
    /// certificates
    #[arg(long, env = "CORACLE_REGISTRY_CONFIG_DIR", value_name = "DIRECTORY")]
    pub(crate) registry_config_dir: Option<OsString>,

    /// A file in the form of containers-policy.json: whose signature images must have [default: anybody's or none]
    #[arg(long, env = "CORACLE_IMAGE_POLICY", value_name = "FILE")]
    pub(crate) image_policy: Option<OsString>,

    /// The configuration of the credential provider plugins; needs --image-credential-provider-bin-dir
    #[arg(long, env = "CORACLE_IMAGE_CREDENTIAL_PROVIDER_CONFIG", value_name = "FILE")]
    pub(crate) image_credential_provider_config: Option<OsString>,

    /// The directory with the programs of the credential provider plugins
    #[arg(long, env = "CORACLE_IMAGE_CREDENTIAL_PROVIDER_BIN_DIR", value_name = "DIRECTORY")]
    pub(crate) image_credential_provider_bin_dir: Option<OsString>,

    /// Whether images are pulled one after the other [default: false]
    #[arg(long, env = "CORACLE_SERIALIZE_IMAGE_PULLS", num_args = 0..=1, default_missing_value = "true",
        require_equals = true, value_name = "BOOL")]
    pub(crate) serialize_image_pulls: Option<String>,

    /// How many images are pulled at a time [default: 8]
    #[arg(
        long,
        env = "CORACLE_MAX_PARALLEL_IMAGE_PULLS",
        allow_negative_numbers = true,
        value_name = "NUMBER"
    )]
    pub(crate) max_parallel_image_pulls: Option<String>,

    /// How many pulls may begin in a second, 0 for any number; more wait [default: 0]
    #[arg(long, env = "CORACLE_REGISTRY_QPS", allow_negative_numbers = true, value_name = "NUMBER")]
    pub(crate) registry_qps: Option<String>,

    /// How many pulls may begin at once after a quiet time, where --registry-qps says anything [default: 10]
    #[arg(long, env = "CORACLE_REGISTRY_BURST", allow_negative_numbers = true, value_name = "NUMBER")]
    pub(crate) registry_burst: Option<String>,

    /// How full the disk must be, in percent, for unused images to go [default: 85]
    #[arg(
        long,
        env = "CORACLE_IMAGE_GC_HIGH_THRESHOLD",
        allow_negative_numbers = true,
        value_name = "PERCENT"
    )]
    pub(crate) image_gc_high_threshold: Option<String>,

    /// How full it is then left, in percent [default: 80]
    #[arg(
        long,
        env = "CORACLE_IMAGE_GC_LOW_THRESHOLD",
        allow_negative_numbers = true,
        value_name = "PERCENT"
    )]
    pub(crate) image_gc_low_threshold: Option<String>,

    /// How long an image stays at least, such as 2m [default: 2m]
    #[arg(long, env = "CORACLE_MINIMUM_IMAGE_TTL_DURATION", value_name = "DURATION")]
    pub(crate) minimum_image_ttl_duration: Option<String>,

    /// How long an image that no pod uses stays at most, such as 24h; 0 for any time [default: 0]
    #[arg(long, env = "CORACLE_IMAGE_MAXIMUM_GC_AGE", value_name = "DURATION")]
    pub(crate) image_maximum_gc_age: Option<String>,
}

/// What of the environment is about images.
#[derive(Clone, Debug, Default)]
pub(crate) struct ImageSurroundings {
    pub(crate) proxies: Proxies,
    /// The user's own directory.
    pub(crate) home: Option<PathBuf>,
}

impl ImageSurroundings {
    /// Reads the environment: `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`, in small letters too, and `HOME`.
    pub(crate) fn read() -> Self {
        let variable = |name: &str| {
            let value = |name: String| std::env::var(name).ok().filter(|value| !value.is_empty());
            value(name.to_owned()).or_else(|| value(name.to_lowercase()))
        };
        let except = variable("NO_PROXY").unwrap_or_default();
        let proxies = Proxies { http: variable("HTTP_PROXY"), https: variable("HTTPS_PROXY"), except };
        Self { proxies, home: std::env::var_os("HOME").map(PathBuf::from) }
    }
}

/// What the flags about images mean.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ImageSettings {
    pub(crate) registry_directory: Option<PathBuf>,
    pub(crate) policy: Option<PathBuf>,
    /// The configuration of the credential provider plugins and the directory of their programs.
    pub(crate) plugins: Option<(PathBuf, PathBuf)>,
    pub(crate) at_a_time: Option<u16>,
    pub(crate) per_second: Option<u16>,
    pub(crate) burst: Option<u16>,
    pub(crate) collection: CollectionRules,
    pub(crate) proxies: Proxies,
    pub(crate) home: Option<PathBuf>,
}

impl ImageSettings {
    /// The settings that the flags stand for; a value that is empty counts as not given.
    pub(crate) fn check(flags: ImageFlags, surroundings: ImageSurroundings) -> Result<Self, UsageError> {
        const PARALLEL: &str = "--max-parallel-image-pulls";
        let collection = collection(&flags)?;
        let at_a_time = number(PARALLEL, flags.max_parallel_image_pulls)?;
        if at_a_time == Some(0) {
            return Err(wrong(PARALLEL, "must be at least 1"));
        }
        let is_serial = boolean("--serialize-image-pulls", flags.serialize_image_pulls.as_deref())?;
        if is_serial && at_a_time.is_some_and(|number| number > 1) {
            return Err(wrong(PARALLEL, "cannot be more than 1 with --serialize-image-pulls"));
        }
        Ok(Self {
            collection,
            registry_directory: given(flags.registry_config_dir).map(PathBuf::from),
            policy: given(flags.image_policy).map(PathBuf::from),
            plugins: plugins(
                given(flags.image_credential_provider_config),
                given(flags.image_credential_provider_bin_dir),
            )?,
            at_a_time: if is_serial { Some(1) } else { at_a_time },
            per_second: number("--registry-qps", flags.registry_qps)?,
            burst: number("--registry-burst", flags.registry_burst)?,
            proxies: surroundings.proxies,
            home: surroundings.home,
        })
    }

    /// Opens the image store below the node's root directory.
    pub(crate) fn open(&self, root_dir: &Path, insecure: &[String]) -> anyhow::Result<Arc<dyn Images>> {
        let mut store = coracle_oci::Settings::new(directory(root_dir));
        store.insecure_registries = insecure.to_vec();
        store.registry_directory.clone_from(&self.registry_directory);
        store.policy.clone_from(&self.policy);
        store.proxies.clone_from(&self.proxies);
        let flag = |error: &OpenError| match error {
            OpenError::Policy { .. } => "--image-policy",
            OpenError::Proxy(_) => "HTTP_PROXY, HTTPS_PROXY",
            _ => "--root-dir",
        };
        Ok(Arc::new(Store::open(store).map_err(|error| {
            let flag = flag(&error);
            anyhow::Error::new(error).context(flag)
        })?))
    }

    /// How images are pulled, and as whom: with the docker configuration in the root directory, else the user's, as a
    /// kubelet does.
    pub(crate) fn pulling(&self, root_dir: &Path) -> anyhow::Result<PullSettings> {
        let in_directory = |directory: PathBuf| directory.join("config.json");
        let of_user = self.home.iter().map(|home| in_directory(home.join(".docker")));
        let files = [in_directory(root_dir.to_owned())].into_iter().chain(of_user).collect();
        let mut credentials = NodeCredentials::of_files(files);
        if let Some((config, programs)) = &self.plugins {
            credentials =
                credentials.with_plugins(config, programs).context("--image-credential-provider-config")?;
        }
        let usual = PullSettings::default();
        Ok(PullSettings {
            at_a_time: self.at_a_time.unwrap_or(usual.at_a_time),
            per_second: self.per_second.unwrap_or(usual.per_second),
            burst: self.burst.unwrap_or(usual.burst),
            credentials,
        })
    }
}

/// Where images lie in the node's root directory.
pub(crate) fn directory(root_dir: &Path) -> PathBuf {
    root_dir.join("images")
}

fn collection(flags: &ImageFlags) -> Result<CollectionRules, UsageError> {
    const HIGH: &str = "--image-gc-high-threshold";
    const LOW: &str = "--image-gc-low-threshold";
    let usual = CollectionRules::default();
    let rules = CollectionRules {
        high: percent(HIGH, flags.image_gc_high_threshold.as_ref(), usual.high)?,
        low: percent(LOW, flags.image_gc_low_threshold.as_ref(), usual.low)?,
        least_age: age(
            "--minimum-image-ttl-duration",
            flags.minimum_image_ttl_duration.as_ref(),
            usual.least_age,
        )?,
        most_age: age("--image-maximum-gc-age", flags.image_maximum_gc_age.as_ref(), usual.most_age)?,
    };
    if rules.low >= rules.high {
        return Err(wrong(LOW, format_args!("must be lower than {HIGH}")));
    }
    Ok(rules)
}

fn percent(flag: &'static str, text: Option<&String>, usual: u8) -> Result<u8, UsageError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(usual) };
    let percent = text.parse().ok().filter(|percent| *percent <= 100);
    percent.ok_or_else(|| wrong(flag, format_args!("{text:?} is not a number between 0 and 100")))
}

fn age(
    flag: &'static str,
    text: Option<&String>,
    usual: SignedDuration,
) -> Result<SignedDuration, UsageError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(usual) };
    let age = duration(flag, Some(text.clone()))?;
    SignedDuration::try_from(age).map_err(|error| wrong(flag, error))
}

fn number(flag: &'static str, text: Option<String>) -> Result<Option<u16>, UsageError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    let number = text.parse();
    number.map(Some).map_err(|_| wrong(flag, format_args!("{text:?} is not a number between 0 and 65535")))
}

fn boolean(flag: &'static str, text: Option<&str>) -> Result<bool, UsageError> {
    match text {
        None | Some("" | "false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => Err(wrong(flag, format_args!("{other:?} is neither true nor false"))),
    }
}

fn plugins(
    config: Option<OsString>,
    directory: Option<OsString>,
) -> Result<Option<(PathBuf, PathBuf)>, UsageError> {
    const CONFIG: &str = "--image-credential-provider-config";
    const DIRECTORY: &str = "--image-credential-provider-bin-dir";
    match (config, directory) {
        (Some(config), Some(directory)) => Ok(Some((config.into(), directory.into()))),
        (None, None) => Ok(None),
        (Some(_), None) => Err(wrong(CONFIG, format_args!("needs {DIRECTORY}"))),
        (None, Some(_)) => Err(wrong(DIRECTORY, format_args!("needs {CONFIG}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: impl FnOnce(&mut ImageFlags)) -> Result<ImageSettings, String> {
        let mut flags = ImageFlags::default();
        change(&mut flags);
        ImageSettings::check(flags, ImageSurroundings::default()).map_err(|error| error.to_string())
    }

    fn refused(change: impl FnOnce(&mut ImageFlags), line: &str) {
        assert_eq!(check(change), Err(line.to_owned()));
    }

    #[test]
    fn nothing_given_is_nothing_special() {
        assert_eq!(check(|_| ()), Ok(ImageSettings::default()));
    }

    #[test]
    fn pulls_may_be_limited() {
        let settings = check(|flags| {
            flags.serialize_image_pulls = Some("true".to_owned());
            flags.registry_qps = Some("5".to_owned());
        });
        let settings = settings.unwrap();
        assert_eq!((settings.at_a_time, settings.per_second, settings.burst), (Some(1), Some(5), None));
        let parallel =
            |number: &'static str| check(|flags| flags.max_parallel_image_pulls = Some(number.to_owned()));
        assert_eq!(parallel("3").unwrap().at_a_time, Some(3));
    }

    #[test]
    fn a_bad_value_is_named_with_its_flag() {
        refused(
            |flags| flags.max_parallel_image_pulls = Some("0".to_owned()),
            "--max-parallel-image-pulls: must be at least 1",
        );
        refused(
            |flags| flags.registry_qps = Some("-1".to_owned()),
            "--registry-qps: \"-1\" is not a number between 0 and 65535",
        );
        refused(
            |flags| flags.serialize_image_pulls = Some("yes".to_owned()),
            "--serialize-image-pulls: \"yes\" is neither true nor false",
        );
        refused(
            |flags| flags.image_gc_high_threshold = Some("80".to_owned()),
            "--image-gc-low-threshold: must be lower than --image-gc-high-threshold",
        );
        refused(
            |flags| flags.image_gc_low_threshold = Some("101".to_owned()),
            "--image-gc-low-threshold: \"101\" is not a number between 0 and 100",
        );
        refused(
            |flags| flags.image_credential_provider_config = Some("/c".into()),
            "--image-credential-provider-config: needs --image-credential-provider-bin-dir",
        );
    }
}
