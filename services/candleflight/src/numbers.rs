//! The numbers that `up` shows live and `status` once, read from the same text that Prometheus gets.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use service::metrics::{Buckets, Samples};
use tokio::time::Instant;

/// How long an observation of freshness counts in what `up` shows.
const RECENT: Duration = Duration::from_mins(1);

/// Columns of [`Numbers::table`], ten characters each.
const HEADS: &str = "\
\x20     since the start: rows                     now in bronze           freshness
  produced  received      gold       lag       hot   durable       p50       p99
";

/// How far each stage of the walk is.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Numbers {
    produced: f64,
    received: f64,
    hot: f64,
    durable: f64,
    lag: f64,
    gold: f64,
    /// Seconds from produced to committed in PostgreSQL.
    freshness: Buckets,
}

impl Numbers {
    /// Reads the metrics of one service, or of several one after the other.
    pub(crate) fn read(text: &str) -> Numbers {
        let samples = Samples::new(text);
        Numbers {
            produced: samples.sum("candleflight_producer_records_total", &[]),
            received: samples.sum("candleflight_bronze_rows_total", &[]),
            hot: samples.sum("candleflight_bronze_hot_rows", &[]),
            durable: samples.sum("candleflight_bronze_durable_rows", &[]),
            lag: samples.sum("candleflight_ingest_lag_records", &[]),
            gold: samples.sum("candleflight_gold_rows_total", &[r#"sink="postgres""#]),
            freshness: samples.buckets("candleflight_freshness_seconds"),
        }
    }

    /// Tells whether a gold row has been committed.
    pub(crate) fn has_gold(&self) -> bool {
        self.gold > 0.0
    }

    /// Lays the numbers out, three lines.
    pub(crate) fn table(&self) -> String {
        let (p50, p99) = self.quantiles();
        let counts = [self.produced, self.received, self.gold, self.lag, self.hot, self.durable];
        let cells = counts.map(count).into_iter().chain([p50, p99]);
        HEADS.to_owned() + &cells.map(|cell| format!("{cell:>10}")).collect::<String>()
    }

    fn quantiles(&self) -> (String, String) {
        let quantile = |q| self.freshness.quantile(q).map_or("-".to_owned(), seconds);
        (quantile(0.5), quantile(0.99))
    }
}

/// Reads the numbers again and again, with the freshness of the last minute: the first rows of a start, which waited for it, would
/// hide the rest.
#[derive(Debug, Default)]
pub(crate) struct Live {
    /// Freshness as it was read, oldest first.
    recent: VecDeque<(Instant, Buckets)>,
}

impl Live {
    /// Reads the metrics as they are `now`.
    pub(crate) fn read(&mut self, text: &str, now: Instant) -> Numbers {
        let numbers = Numbers::read(text);
        // The front is the youngest that is too old, or the first of all.
        while self.recent.get(1).is_some_and(|(then, _)| now.duration_since(*then) > RECENT) {
            self.recent.pop_front();
        }
        let earlier = self.recent.front().map(|(_, earlier)| earlier.clone()).unwrap_or_default();
        self.recent.push_back((now, numbers.freshness.clone()));
        Numbers { freshness: numbers.freshness.since(&earlier), ..numbers }
    }
}

impl fmt::Display for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (p50, p99) = self.quantiles();
        let Numbers { produced, lag, received, hot, durable, gold, .. } = self;
        write!(
            f,
            "produced {produced}, received {received}, gold {gold}; lag {lag}; bronze hot {hot}, durable {durable}; \
             freshness p50 {p50}, p99 {p99}"
        )
    }
}

/// Writes a count with its thousands apart.
fn count(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut grouped = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Writes a duration in the unit that leaves one to three digits before the point.
fn seconds(seconds: f64) -> String {
    if seconds < 1.0 { format!("{:.1} ms", seconds * 1e3) } else { format!("{seconds:.1} s") }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::{Live, Numbers};

    const METRICS: &str = r#"
candleflight_producer_records_total 12345
candleflight_bronze_rows_total 12340
candleflight_bronze_hot_rows 40
candleflight_bronze_durable_rows 12300
candleflight_ingest_lag_records{partition="0"} 2
candleflight_ingest_lag_records{partition="1"} 3
candleflight_gold_rows_total{sink="postgres"} 12338
candleflight_gold_rows_total{sink="lake"} 12000
candleflight_freshness_seconds_bucket{le="0.005"} 50
candleflight_freshness_seconds_bucket{le="1.5"} 100
candleflight_freshness_seconds_bucket{le="+Inf"} 100
"#;

    #[test]
    fn a_line_says_how_far_each_stage_is() {
        assert_eq!(
            Numbers::read(METRICS).to_string(),
            "produced 12345, received 12340, gold 12338; lag 5; bronze hot 40, durable 12300; freshness p50 5.0 ms, p99 1.5 s"
        );
    }

    #[test]
    fn a_table_has_a_column_for_each_stage() {
        let table = Numbers::read(METRICS).table();
        assert_eq!(
            table.lines().skip(1).collect::<Vec<_>>(),
            [
                "  produced  received      gold       lag       hot   durable       p50       p99",
                "    12,345    12,340    12,338         5        40    12,300    5.0 ms     1.5 s",
            ]
        );
    }

    #[test]
    fn without_a_gold_row_there_is_no_freshness() {
        let numbers = Numbers::read("candleflight_producer_records_total 1");
        assert!(!numbers.has_gold());
        assert!(numbers.to_string().ends_with("freshness p50 -, p99 -"));
    }

    #[test]
    fn freshness_is_that_of_the_last_minute() {
        let start = Instant::now();
        let text = |fast, all| {
            format!(
                "candleflight_freshness_seconds_bucket{{le=\"0.01\"}} {fast}\ncandleflight_freshness_seconds_bucket{{le=\"5.0\"}} {all}\n"
            )
        };
        let mut live = Live::default();
        let p99 = |numbers: Numbers| numbers.freshness.quantile(0.99);
        assert_eq!(p99(live.read(&text(0, 1), start)), Some(5.0));
        assert_eq!(p99(live.read(&text(10, 11), start + Duration::from_secs(50))), Some(0.01));
        assert_eq!(p99(live.read(&text(10, 12), start + Duration::from_secs(100))), Some(5.0));
        assert_eq!(p99(live.read(&text(10, 12), start + Duration::from_secs(200))), None);
    }
}
