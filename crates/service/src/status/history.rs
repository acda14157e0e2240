//! Samples of the last minutes, one a second.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::Numbers;
use crate::metrics::Buckets;

/// Maximum number of kept samples: five minutes.
const SAMPLES_MAX: usize = 300;
/// Number of samples for freshness: one minute, so that rows delayed by a start or an outage soon stop counting.
const FRESHNESS_SAMPLES: usize = 60;
/// Number of samples for a rate.
///
/// A small number shows a stop at once. One sample would be too few, because services report only once a second.
const RATE_SAMPLES: usize = 5;

/// Rates, counts and freshness at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Time of the sample, in microseconds UTC.
    pub at_micros: i64,
    /// Records produced a second.
    pub produced_per_second: f64,
    /// Rows received by bronze a second.
    pub received_per_second: f64,
    /// Gold rows committed in PostgreSQL a second.
    pub gold_per_second: f64,
    /// Messages of the topic that are not read yet.
    pub lag: f64,
    /// Rows in bronze that are visible but not yet durable.
    pub hot: f64,
    /// Rows in bronze that are durable.
    pub durable: f64,
    /// Median freshness of the last minute: seconds from production to the commit in PostgreSQL. `None` if no rows were committed.
    pub freshness_p50: Option<f64>,
    /// 99th percentile of the freshness of the last minute.
    pub freshness_p99: Option<f64>,
}

/// Samples of the last minutes. Each sample is stored with the numbers that it was computed from.
#[derive(Debug, Default)]
pub(super) struct History {
    samples: VecDeque<(Sample, Numbers)>,
}

impl History {
    /// Adds the current numbers.
    pub(super) fn push(&mut self, at_micros: i64, numbers: Numbers) {
        let sample = self.sample(at_micros, &numbers);
        if self.samples.len() == SAMPLES_MAX {
            self.samples.pop_front();
        }
        self.samples.push_back((sample, numbers));
    }

    /// Returns the samples, oldest first.
    pub(super) fn samples(&self) -> impl Iterator<Item = &Sample> {
        self.samples.iter().map(|(sample, _)| sample)
    }

    /// Returns `numbers` with the freshness of the last minute only.
    pub(super) fn recent(&self, numbers: Numbers) -> Numbers {
        let earlier = self.back(FRESHNESS_SAMPLES).map(|(_, numbers)| &numbers.freshness);
        Numbers { freshness: numbers.freshness.since(earlier.unwrap_or(&Buckets::default())), ..numbers }
    }

    /// Returns the sample of `numbers`. Its rates compare `numbers` with an earlier sample.
    pub(super) fn sample(&self, at_micros: i64, numbers: &Numbers) -> Sample {
        let earlier = self.back(RATE_SAMPLES);
        let rate = |count: fn(&Numbers) -> f64| {
            let Some((sample, then)) = earlier else { return 0.0 };
            #[expect(clippy::cast_precision_loss, reason = "for a person's eye")]
            let seconds = (at_micros - sample.at_micros) as f64 / 1e6;
            // The counts of a restarted service begin at zero, so the difference can be negative.
            if seconds > 0.0 { ((count(numbers) - count(then)) / seconds).max(0.0) } else { 0.0 }
        };
        let freshness = self.recent(numbers.clone()).freshness;
        Sample {
            at_micros,
            produced_per_second: rate(|numbers| numbers.produced),
            received_per_second: rate(|numbers| numbers.received),
            gold_per_second: rate(|numbers| numbers.gold),
            lag: numbers.lag,
            hot: numbers.hot,
            durable: numbers.durable,
            freshness_p50: freshness.quantile(0.5),
            freshness_p99: freshness.quantile(0.99),
        }
    }

    /// Returns the sample `count` places before the end, or the first sample if there are fewer. Returns `None` if there are no samples.
    fn back(&self, count: usize) -> Option<&(Sample, Numbers)> {
        self.samples.get(self.samples.len().saturating_sub(count))
    }
}
