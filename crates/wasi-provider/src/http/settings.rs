//! What a pod's annotations say of its HTTP servers.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use coracle_lifecycle::quantity;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use thiserror::Error;

/// What the names of all these annotations begin with.
const PREFIX: &str = "coracle.dev/http-";

/// How the servers of a pod are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// `concurrency`: the requests that one container answers at a time; one more is refused.
    pub(crate) concurrency: usize,
    /// `requests-per-instance`: the requests that one instance answers before it is dropped.
    pub(crate) instance_requests: usize,
    /// `concurrency-per-instance`: the requests that one instance answers at a time.
    pub(crate) instance_concurrency: usize,
    /// `timeout-seconds`: how long a request may stand still, be it by its client or by the guest.
    pub(crate) patience: Duration,
    /// `max-body`: the most bytes of a request's body.
    pub(crate) body: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            concurrency: 1_000,
            instance_requests: 1,
            instance_concurrency: 1,
            // The usual grace of a pod, so that what was accepted before a stop is answered in it.
            patience: Duration::from_secs(30),
            body: 64 << 20,
        }
    }
}

/// An annotation that says nothing that can be done.
#[derive(Debug, PartialEq, Eq, Error)]
#[error("metadata.annotations[{annotation}]: {why}")]
pub(crate) struct Malformed {
    pub(crate) annotation: String,
    pub(crate) why: String,
}

impl Settings {
    /// The settings that these annotations ask for.
    ///
    /// # Errors
    /// One of them has no meaning, or a value out of its range.
    pub(crate) fn of(annotations: &BTreeMap<String, String>) -> Result<Self, Malformed> {
        let mut settings = Self::default();
        for (annotation, value) in annotations {
            if let Some(name) = annotation.strip_prefix(PREFIX) {
                settings.set(name, value).map_err(|why| Malformed { annotation: annotation.clone(), why })?;
            }
        }
        if settings.instance_concurrency > settings.instance_requests {
            let annotation = format!("{PREFIX}concurrency-per-instance");
            let why = format!(
                "{} is more than {PREFIX}requests-per-instance, {}",
                settings.instance_concurrency, settings.instance_requests
            );
            return Err(Malformed { annotation, why });
        }
        Ok(settings)
    }

    /// Whether an instance may answer several requests at a time.
    pub(crate) fn shares_instances(&self) -> bool {
        self.instance_concurrency > 1
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "concurrency" => self.concurrency = number(value, 1..=10_000)?,
            "requests-per-instance" => self.instance_requests = number(value, 1..=1_000_000)?,
            "concurrency-per-instance" => self.instance_concurrency = number(value, 1..=1_000)?,
            "timeout-seconds" => self.patience = Duration::from_secs(number(value, 1..=3_600)? as u64),
            "max-body" => self.body = bytes(value)?,
            _ => return Err("there is no such setting".to_owned()),
        }
        Ok(())
    }
}

fn number(value: &str, range: RangeInclusive<usize>) -> Result<usize, String> {
    let number = value.parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| format!("{value:?} is no number from {} to {}", range.start(), range.end()))
}

fn bytes(value: &str) -> Result<u64, String> {
    quantity::whole(&Quantity(value.to_owned()))
        .map_err(|_| format!("{value:?} is no quantity, such as 64Mi"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(annotations: &[(&str, &str)]) -> Result<Settings, String> {
        let annotations = annotations.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Settings::of(&annotations.collect()).map_err(|malformed| malformed.to_string())
    }

    #[test]
    fn nothing_said_is_a_fresh_instance_for_each_request() {
        let settings = of(&[("example.com/http-concurrency", "many")]).unwrap();
        assert_eq!(settings, Settings::default());
        assert_eq!((settings.instance_requests, settings.instance_concurrency), (1, 1));
    }

    #[test]
    fn each_setting_is_read() {
        let settings = of(&[
            ("coracle.dev/http-concurrency", "7"),
            ("coracle.dev/http-requests-per-instance", "1000"),
            ("coracle.dev/http-concurrency-per-instance", "16"),
            ("coracle.dev/http-timeout-seconds", "2"),
            ("coracle.dev/http-max-body", "1Ki"),
        ]);
        let expected = Settings {
            concurrency: 7,
            instance_requests: 1000,
            instance_concurrency: 16,
            patience: Duration::from_secs(2),
            body: 1024,
        };
        assert_eq!(settings, Ok(expected));
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_name() {
        let check = |name: &str, value: &str, words: &str| {
            let annotation = format!("coracle.dev/http-{name}");
            let refused = of(&[(&annotation, value)]).unwrap_err();
            assert!(refused.starts_with(&format!("metadata.annotations[{annotation}]: ")), "{refused}");
            assert!(refused.contains(words), "{refused}");
        };
        for value in ["0", "10001", "-1", "", "ten", "1.5", " 1"] {
            check("concurrency", value, "is no number from 1 to 10000");
        }
        check("requests-per-instance", "0", "is no number");
        check("timeout-seconds", "30s", "is no number from 1 to 3600");
        check("max-body", "lots", "is no quantity");
        check("concurency", "1", "no such setting");
        check("concurrency-per-instance", "2", "is more than coracle.dev/http-requests-per-instance, 1");
    }
}
