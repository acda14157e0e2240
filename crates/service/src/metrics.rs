//! The metrics of a service in Prometheus' text format, and its readiness.

pub mod names;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::registry::{Metric, Registry};
use tokio::sync::watch;

use crate::metrics::names::Description;

/// Registry of metrics and readiness. Clones share it. Every metric name has the prefix `candleflight_`.
#[derive(Clone)]
pub struct Metrics(Arc<Shared>);

struct Shared {
    registry: Mutex<Registry>,
    readiness: watch::Sender<BTreeMap<&'static str, Result<(), String>>>,
}

impl Default for Metrics {
    fn default() -> Self {
        let registry = Mutex::new(Registry::with_prefix("candleflight"));
        Metrics(Arc::new(Shared { registry, readiness: watch::Sender::default() }))
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Registers a metric and returns it.
    pub fn register<M: Metric + Clone>(&self, description: Description, metric: M) -> M {
        let mut registry = self.0.registry.lock().unwrap_or_else(PoisonError::into_inner);
        registry.register(description.registered(), description.help, metric.clone());
        metric
    }

    /// Sets the readiness of `service`: ready, or the reason why it is not.
    pub fn set_ready(&self, service: &'static str, readiness: Result<(), String>) {
        self.0.readiness.send_modify(|services| {
            services.insert(service, readiness);
        });
    }

    /// Waits until `service` is ready.
    pub async fn until_ready(&self, service: &str) {
        let is_ready = |services: &BTreeMap<&'static str, _>| matches!(services.get(service), Some(Ok(())));
        let mut services = self.0.readiness.subscribe();
        // The call fails only if there is no sender, and `self` holds a sender.
        let _ready = services.wait_for(is_ready).await;
    }

    /// Returns true if every service that has set its readiness is ready, and a line for each of them.
    ///
    /// It returns false if there is no such service.
    pub fn readiness(&self) -> (bool, String) {
        let services = self.services();
        let line = |(service, reason): (&String, &Option<String>)| {
            format!("{service}: {}\n", reason.as_deref().unwrap_or("ready"))
        };
        let all_ready = !services.is_empty() && services.values().all(Option::is_none);
        (all_ready, services.iter().map(line).collect())
    }

    /// Returns the services that have set their readiness: ready (`None`), or the reason why not.
    pub fn services(&self) -> BTreeMap<String, Option<String>> {
        let readiness = self.0.readiness.borrow();
        readiness.iter().map(|(service, state)| ((*service).to_owned(), state.clone().err())).collect()
    }

    /// Returns all metrics in Prometheus' text format.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        let registry = self.0.registry.lock().unwrap_or_else(PoisonError::into_inner);
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("a String takes any text");
        text
    }
}

/// Samples in Prometheus' text format.
///
/// `up` and `status` read the numbers that they show from this text, so that they agree with Prometheus.
#[derive(Debug)]
pub struct Samples<'a>(&'a str);

impl<'a> Samples<'a> {
    /// Wraps a text.
    pub fn new(text: &'a str) -> Self {
        Samples(text)
    }

    /// Sums the samples of `metric` whose labels contain each of `labels`, such as `le="0.5"`.
    pub fn sum(&self, metric: Description, labels: &[&str]) -> f64 {
        self.matching(metric.name, labels).map(|(_, value)| value).fold(0.0, |sum, value| sum + value)
    }

    /// Returns the value of `label` and the value of the sample, for each sample of `metric` whose labels contain each of `labels`.
    pub fn labelled(
        &self,
        metric: Description,
        labels: &[&str],
        label: &str,
    ) -> impl Iterator<Item = (&'a str, f64)> {
        let opening = format!("{label}=\"");
        self.matching(metric.name, labels).filter_map(move |(labels, value)| {
            Some((labels.split_once(&opening)?.1.split('"').next()?, value))
        })
    }

    /// Returns every sample: its name, its labels as in the text but without braces, and its value.
    pub fn all(&self) -> impl Iterator<Item = (&'a str, &'a str, f64)> {
        self.0.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            Some((name, labels.trim_end_matches('}'), value.parse().ok()?))
        })
    }

    /// Estimates the quantile `q` of a histogram; see [`Buckets::quantile`].
    pub fn quantile(&self, metric: Description, q: f64) -> Option<f64> {
        self.buckets(metric).quantile(q)
    }

    /// Reads a histogram.
    pub fn buckets(&self, metric: Description) -> Buckets {
        let bound = |labels: &str| labels.split("le=\"").nth(1)?.split('"').next()?.parse::<f64>().ok();
        let read = |(labels, count)| (bound(labels).unwrap_or(f64::INFINITY), count);
        Buckets(self.matching(&format!("{}_bucket", metric.name), &[]).map(read).collect())
    }

    fn matching(&self, name: &str, labels: &[&str]) -> impl Iterator<Item = (&'a str, f64)> {
        self.0.lines().filter_map(move |line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (series_name, series_labels) = series.split_once('{').unwrap_or((series, ""));
            let is_match = series_name == name && labels.iter().all(|label| series_labels.contains(label));
            is_match.then_some((series_labels, value.parse().ok()?))
        })
    }
}

/// A histogram: each upper bound, ascending, with the number of observations at or below it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Buckets(Vec<(f64, f64)>);

impl Buckets {
    /// Returns the observations since `earlier`, an older state of the same histogram.
    pub fn since(&self, earlier: &Buckets) -> Buckets {
        let before = earlier.0.iter().map(|(_, count)| *count).chain(std::iter::repeat(0.0));
        Buckets(self.0.iter().zip(before).map(|((bound, count), before)| (*bound, count - before)).collect())
    }

    /// Estimates the quantile `q` as the upper bound of its bucket. Returns `None` if there are no observations.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let total = self.0.last().map(|(_, count)| *count).filter(|total| *total > 0.0)?;
        self.0.iter().find(|(_, count)| *count >= q * total).map(|(bound, _)| *bound)
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::histogram::Histogram;

    use super::names::{BRONZE_FLUSH_SECONDS, BRONZE_ROWS};
    use super::{Metrics, Samples};

    #[test]
    fn what_was_registered_can_be_read_back() {
        let metrics = Metrics::default();
        let rows: Counter = metrics.register(BRONZE_ROWS, Counter::default());
        let seconds = metrics.register(BRONZE_FLUSH_SECONDS, Histogram::new([0.1, 1.0, 10.0]));
        rows.inc_by(3);
        (0..99).for_each(|_| seconds.observe(0.5));
        seconds.observe(5.0);
        let text = metrics.encode();
        let samples = Samples::new(&text);
        assert_eq!(samples.sum(BRONZE_ROWS, &[]), 3.0);
        let buckets = samples.buckets(BRONZE_FLUSH_SECONDS);
        assert_eq!(buckets.quantile(0.5), Some(1.0));
        assert_eq!(buckets.quantile(1.0), Some(10.0));
        assert_eq!(samples.buckets(super::names::FRESHNESS_SECONDS).quantile(0.5), None);
        seconds.observe(5.0);
        let later = metrics.encode();
        let later = Samples::new(&later).buckets(BRONZE_FLUSH_SECONDS);
        assert_eq!(later.since(&buckets).quantile(0.01), Some(10.0));
        assert_eq!(later.since(&later).quantile(0.5), None);
    }

    #[test]
    fn a_process_is_ready_once_every_service_is() {
        let metrics = Metrics::default();
        assert!(!metrics.readiness().0);
        metrics.set_ready("gold", Err("waits for the Flight server".to_owned()));
        assert_eq!(metrics.readiness(), (false, "gold: waits for the Flight server\n".to_owned()));
        metrics.set_ready("gold", Ok(()));
        assert!(metrics.readiness().0);
    }
}
