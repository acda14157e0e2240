//! The schedule of the records.

use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use tokio::time::Instant;

/// Longest delay that the producer makes up for in a burst. After a longer one, such as the sleep of a laptop, the schedule restarts.
const CATCH_UP_MAX: Duration = Duration::from_secs(1);

/// Number of records a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    /// As many as Kafka accepts.
    Max,
    /// A fixed number a second.
    PerSecond(NonZeroU32),
}

impl FromStr for Rate {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "max" {
            return Ok(Rate::Max);
        }
        let number = text.strip_suffix("/s").unwrap_or(text);
        number.parse().map(Rate::PerSecond).map_err(|_| "a rate is `max` or a number such as `500/s`")
    }
}

impl Rate {
    /// Returns the time between two records. Returns zero for the highest rate.
    pub(crate) fn interval(self) -> Duration {
        match self {
            Rate::Max => Duration::ZERO,
            Rate::PerSecond(count) => Duration::from_secs(1) / count.get(),
        }
    }
}

/// A schedule without drift: record n is due n intervals after the first.
pub(crate) struct Pace {
    interval: Duration,
    due: Instant,
}

impl Pace {
    /// Creates a schedule whose first record is due at once.
    pub(crate) fn new(interval: Duration, now: Instant) -> Self {
        Pace { interval, due: now }
    }

    /// Returns the time until the next record is due.
    pub(crate) fn wait(&self, now: Instant) -> Duration {
        self.due.saturating_duration_since(now)
    }

    /// Moves on to the record after the one just sent.
    pub(crate) fn advance(&mut self, now: Instant) {
        if now.saturating_duration_since(self.due) > CATCH_UP_MAX {
            self.due = now;
        }
        self.due += self.interval;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_max_or_a_positive_number_a_second() {
        let ten = NonZeroU32::new(10).unwrap();
        assert_eq!("max".parse(), Ok(Rate::Max));
        assert_eq!("10/s".parse(), Ok(Rate::PerSecond(ten)));
        assert_eq!("10".parse(), Ok(Rate::PerSecond(ten)));
        assert!(["0/s", "-1/s", "fast", ""].iter().all(|text| text.parse::<Rate>().is_err()));
    }

    #[test]
    fn a_late_record_does_not_delay_the_ones_after_it() {
        let start = Instant::now();
        let mut pace = Pace::new(Duration::from_millis(100), start);
        assert_eq!(pace.wait(start), Duration::ZERO);
        pace.advance(start + Duration::from_millis(30));
        assert_eq!(pace.wait(start + Duration::from_millis(30)), Duration::from_millis(70));
        pace.advance(start + Duration::from_millis(350));
        assert_eq!(pace.wait(start + Duration::from_millis(350)), Duration::ZERO);
    }

    #[test]
    fn after_a_long_pause_nothing_is_made_up_for() {
        let start = Instant::now();
        let mut pace = Pace::new(Duration::from_millis(100), start);
        let woken = start + Duration::from_hours(8);
        pace.advance(woken);
        assert_eq!(pace.wait(woken), Duration::from_millis(100));
    }

    #[test]
    fn at_the_maximum_rate_nothing_waits() {
        let start = Instant::now();
        let mut pace = Pace::new(Rate::Max.interval(), start);
        pace.advance(start);
        assert_eq!(pace.wait(start), Duration::ZERO);
    }
}
