use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Bounds in seconds: those of a kubelet, and finer ones below its first.
const BOUNDS: [f64; 20] = [
    0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 45.0, 60.0, 120.0, 300.0, 600.0,
    1_800.0, 3_600.0,
];

/// How long pods take from the first the node sees of them to the API server's answer to the status by which they run, as
/// Prometheus knows it: `kubelet_pod_start_duration_seconds`.
///
/// <https://kubernetes.io/docs/reference/instrumentation/metrics/>
#[derive(Clone)]
pub(crate) struct Startups {
    registry: Arc<Registry>,
    durations: Histogram,
}

impl Startups {
    /// Notes one more.
    pub(crate) fn add(&self, duration: Duration) {
        self.durations.observe(duration.as_secs_f64());
    }

    /// All of them in the text format of `OpenMetrics`.
    pub(crate) fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

impl Default for Startups {
    fn default() -> Self {
        let durations = Histogram::new(BOUNDS);
        let mut registry = Registry::default();
        registry.register(
            "kubelet_pod_start_duration_seconds",
            "Duration in seconds from kubelet seeing a pod for the first time to the pod starting to run",
            durations.clone(),
        );
        Self { registry: Arc::new(registry), durations }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_counted_by_how_long_they_took() {
        let startups = Startups::default();
        [15, 40, 7_200_000]
            .map(Duration::from_millis)
            .into_iter()
            .for_each(|duration| startups.add(duration));
        let text = startups.text().unwrap();
        let value = |of: &str| {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix(&format!("kubelet_pod_start_duration_seconds_{of} ")));
            line.unwrap_or_else(|| panic!("no {of} in {text}")).to_owned()
        };
        assert_eq!(value("count"), "3");
        assert_eq!(value("sum"), "7200.055");
        for (bound, count) in [("0.01", "0"), ("0.02", "1"), ("0.05", "2"), ("3600.0", "2"), ("+Inf", "3")] {
            assert_eq!(value(&format!("bucket{{le=\"{bound}\"}}")), count, "{bound}");
        }
    }
}
