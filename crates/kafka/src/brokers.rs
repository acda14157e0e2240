//! Whether a client still knows any broker.
//!
//! A broker that stops may say, last of all, that there is none. librdkafka then drops those it knew and goes back to the bootstrap
//! servers; but where its threads meet badly, it takes that order back and stays silent for ever (confluentinc/librdkafka#5301). No
//! option prevents that: the client is closed, and a new one opened.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rdkafka::statistics::Statistics;

use crate::Error;

/// Time between two statistics, of which each says which brokers the client knows.
pub(crate) const STATISTICS_INTERVAL: Duration = Duration::from_secs(1);
/// So many statistics in a row without a broker are no passing state: librdkafka goes back to the bootstrap servers at once.
const STATISTICS_MIN: u32 = 2;
/// What statistics call a broker that can be connected to.
const SOURCES: [&str; 2] = ["configured", "learned"];

/// Follows the brokers that a client knows.
#[derive(Debug, Default)]
pub struct Brokers {
    /// Statistics in a row without one.
    without: AtomicU32,
}

impl Brokers {
    /// Takes in a client's statistics.
    pub fn look(&self, statistics: &Statistics) {
        if statistics.brokers.values().any(|broker| SOURCES.contains(&broker.source.as_str())) {
            self.without.store(0, Ordering::Relaxed);
        } else {
            self.without.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Fails once the client has no broker left: it will not do anything any more.
    ///
    /// # Errors
    ///
    /// [`Error::Forgotten`].
    pub fn check(&self) -> Result<(), Error> {
        if self.without.load(Ordering::Relaxed) < STATISTICS_MIN { Ok(()) } else { Err(Error::Forgotten) }
    }

    /// Waits until [`Brokers::check`] fails; returns its error.
    pub async fn forgotten(&self) -> Error {
        loop {
            if let Err(error) = self.check() {
                return error;
            }
            tokio::time::sleep(STATISTICS_INTERVAL).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::statistics::{Broker, Statistics};

    use super::Brokers;

    /// `seen`: for each statistics the sources of the brokers in it.
    fn check(seen: &[&[&str]], is_forgotten: bool) {
        let brokers = Brokers::default();
        for sources in seen {
            let mut statistics = Statistics::default();
            for source in *sources {
                let broker = Broker { source: (*source).to_owned(), ..Broker::default() };
                statistics.brokers.insert((*source).to_owned(), broker);
            }
            brokers.look(&statistics);
        }
        assert_eq!(brokers.check().is_err(), is_forgotten, "{seen:?}");
    }

    #[test]
    fn a_client_that_has_not_spoken_yet_is_well() {
        check(&[], false);
    }

    #[test]
    fn a_client_is_given_up_once_it_knows_no_broker_twice_in_a_row() {
        check(&[&["internal", "learned"], &["internal"], &["internal"]], true);
        check(&[&["logical"], &["internal", "logical"]], true);
        check(&[&["internal"], &["internal", "configured"], &["internal"]], false);
    }

    #[test]
    fn a_client_whose_brokers_are_merely_down_is_left_alone() {
        check(&[&["internal", "configured"], &["internal", "learned"], &["learned"]], false);
    }
}
