//! The last minutes, a sample a second.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::Numbers;
use crate::metrics::Buckets;

/// Samples that are kept: five minutes.
const SAMPLES_MAX: usize = 300;
/// Samples over which freshness is taken: the last minute, so that what a start or an outage held up is soon behind.
const FRESHNESS_SAMPLES: usize = 60;
/// Samples over which a rate is taken: few, to show a stop at once; several, since services report once a second.
const RATE_SAMPLES: usize = 5;

/// How it was at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// When, microseconds UTC.
    pub at_micros: i64,
    /// Records produced a second.
    pub produced_per_second: f64,
    /// Rows received by bronze a second.
    pub received_per_second: f64,
    /// Gold rows committed in PostgreSQL a second.
    pub gold_per_second: f64,
    /// Messages of the topic that are not read yet.
    pub lag: f64,
    /// Rows in bronze, visible, not yet durable.
    pub hot: f64,
    /// Rows in bronze, durable.
    pub durable: f64,
    /// Seconds from produced to committed in PostgreSQL, of the last minute: the median; none without rows.
    pub freshness_p50: Option<f64>,
    /// 99 of 100 were not older.
    pub freshness_p99: Option<f64>,
}

/// The last minutes.
#[derive(Debug, Default)]
pub(super) struct History {
    samples: VecDeque<(Sample, Numbers)>,
}

impl History {
    /// Adds what is now.
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

    /// Returns the numbers with the freshness of the last minute.
    pub(super) fn recent(&self, numbers: Numbers) -> Numbers {
        let earlier = self.back(FRESHNESS_SAMPLES).map(|(_, numbers)| &numbers.freshness);
        Numbers { freshness: numbers.freshness.since(earlier.unwrap_or(&Buckets::default())), ..numbers }
    }

    /// Returns how `numbers` compare with the last samples.
    pub(super) fn sample(&self, at_micros: i64, numbers: &Numbers) -> Sample {
        let earlier = self.back(RATE_SAMPLES);
        let rate = |count: fn(&Numbers) -> f64| {
            let Some((sample, then)) = earlier else { return 0.0 };
            #[expect(clippy::cast_precision_loss, reason = "for a person's eye")]
            let seconds = (at_micros - sample.at_micros) as f64 / 1e6;
            // A service that started again counts from zero.
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

    /// Returns the sample so many back, or the first.
    fn back(&self, count: usize) -> Option<&(Sample, Numbers)> {
        self.samples.get(self.samples.len().saturating_sub(count))
    }
}
