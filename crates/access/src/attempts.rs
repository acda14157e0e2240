//! Failed log-ins, and the wait that they impose on the next log-in.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

/// Number of failures in a row after which log-ins must wait.
const FAILURES_MAX: u32 = 5;
/// Wait after too many failures. After this long without a failure, the count starts again.
const PAUSE: Duration = Duration::from_secs(30);
/// Maximum number of pairs of name and address that are kept. Beyond this number, the oldest failure is forgotten.
const REMEMBERED_MAX: usize = 10_000;

/// Address and user name of a log-in.
///
/// Failures count for a pair of name and address, so that guesses from one address do not lock out the user at a different address.
pub(crate) type Who = (IpAddr, String);

/// Recent failures by name and address.
#[derive(Debug, Default)]
pub(crate) struct Attempts(HashMap<Who, Failures>);

#[derive(Debug)]
struct Failures {
    count: u32,
    last: Instant,
}

impl Attempts {
    /// Returns the time that `who` must wait before the next try. Returns `None` if there is no wait.
    pub(crate) fn pause(&self, who: &Who, now: Instant) -> Option<Duration> {
        let failures = self.0.get(who).filter(|failures| failures.count >= FAILURES_MAX)?;
        PAUSE.checked_sub(now - failures.last).filter(|pause| !pause.is_zero())
    }

    /// Records a failure.
    pub(crate) fn failed(&mut self, who: Who, now: Instant) {
        if self.0.len() >= REMEMBERED_MAX {
            self.0.retain(|_, failures| now - failures.last < PAUSE);
        }
        if self.0.len() >= REMEMBERED_MAX
            && let Some(oldest) =
                self.0.iter().min_by_key(|(_, failures)| failures.last).map(|(who, _)| who.clone())
        {
            self.0.remove(&oldest);
        }
        let failures = self.0.entry(who).or_insert(Failures { count: 0, last: now });
        if now - failures.last >= PAUSE {
            failures.count = 0;
        }
        failures.count += 1;
        failures.last = now;
    }

    /// Forgets the failures of `who`, after a successful log-in.
    pub(crate) fn succeeded(&mut self, who: &Who) {
        self.0.remove(who);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use tokio::time::Instant;

    use super::{Attempts, FAILURES_MAX, PAUSE, REMEMBERED_MAX};

    #[test]
    fn the_fifth_failure_in_a_row_makes_that_name_at_that_address_wait_and_nobody_else() {
        let (mut attempts, now) = (Attempts::default(), Instant::now());
        let who = |host: u8, name: &str| (Ipv4Addr::new(10, 0, 0, host).into(), name.to_owned());
        for _ in 0..FAILURES_MAX {
            assert_eq!(attempts.pause(&who(1, "eve"), now), None);
            attempts.failed(who(1, "eve"), now);
        }
        assert_eq!(attempts.pause(&who(1, "eve"), now), Some(PAUSE));
        assert_eq!(attempts.pause(&who(2, "eve"), now), None);
        assert_eq!(attempts.pause(&who(1, "bob"), now), None);
        assert_eq!(attempts.pause(&who(1, "eve"), now + PAUSE), None);
        attempts.failed(who(1, "eve"), now + PAUSE);
        assert_eq!(attempts.pause(&who(1, "eve"), now + PAUSE), None, "the count starts again");
    }

    #[test]
    fn guesses_at_many_names_hold_bounded_memory() {
        let (mut attempts, mut now) = (Attempts::default(), Instant::now());
        for name in 0..REMEMBERED_MAX + 10 {
            now += Duration::from_micros(1);
            attempts.failed((Ipv4Addr::LOCALHOST.into(), name.to_string()), now);
        }
        assert_eq!(attempts.0.len(), REMEMBERED_MAX);
    }
}
