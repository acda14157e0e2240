//! The numbers that `up` shows live and `status` once, read from the same text that Prometheus gets.

use std::fmt;

use service::metrics::Samples;

/// How far each stage of the walk is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Numbers {
    produced: f64,
    received: f64,
    hot: f64,
    durable: f64,
    lag: f64,
    gold: f64,
    /// Seconds from produced to committed in PostgreSQL, since the start; `None` before the first row.
    freshness: Option<(f64, f64)>,
}

impl Numbers {
    /// Reads the metrics of one service, or of several one after the other.
    pub(crate) fn read(text: &str) -> Numbers {
        let samples = Samples::new(text);
        let freshness = |q| samples.quantile("candleflight_freshness_seconds", q);
        Numbers {
            produced: samples.sum("candleflight_producer_records_total", &[]),
            received: samples.sum("candleflight_bronze_rows_total", &[]),
            hot: samples.sum("candleflight_bronze_hot_rows", &[]),
            durable: samples.sum("candleflight_bronze_durable_rows", &[]),
            lag: samples.sum("candleflight_ingest_lag_records", &[]),
            gold: samples.sum("candleflight_gold_rows_total", &[r#"sink="postgres""#]),
            freshness: freshness(0.5).zip(freshness(0.99)),
        }
    }

    /// Tells whether a gold row has been committed.
    pub(crate) fn has_gold(&self) -> bool {
        self.gold > 0.0
    }

    /// Lays the numbers out along the walk, two lines.
    pub(crate) fn table(&self) -> String {
        let (p50, p99) = self.quantiles();
        let heads = ["produced", "lag", "received", "hot", "durable", "gold rows", "fresh p50", "p99"];
        let values = [
            count(self.produced),
            count(self.lag),
            count(self.received),
            count(self.hot),
            count(self.durable),
            count(self.gold),
            p50,
            p99,
        ];
        let line = |cells: [String; 8]| cells.map(|cell| format!("{cell:>10}")).join("");
        format!("{}\n{}", line(heads.map(str::to_owned)), line(values))
    }

    fn quantiles(&self) -> (String, String) {
        self.freshness.map_or(("-".to_owned(), "-".to_owned()), |(p50, p99)| (seconds(p50), seconds(p99)))
    }
}

impl fmt::Display for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (p50, p99) = self.quantiles();
        let Numbers { produced, lag, received, hot, durable, gold, .. } = self;
        write!(
            f,
            "produced {produced}, lag {lag}, bronze received {received} (hot {hot}, durable {durable}), gold {gold}, \
             freshness p50 {p50} p99 {p99}"
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
    if seconds < 1.0 {
        format!("{:.1} ms", seconds * 1e3)
    } else {
        format!("{seconds:.1} s")
    }
}

#[cfg(test)]
mod tests {
    use super::Numbers;

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
            "produced 12345, lag 5, bronze received 12340 (hot 40, durable 12300), gold 12338, freshness p50 5.0 ms p99 1.5 s"
        );
    }

    #[test]
    fn a_table_has_a_column_for_each_stage() {
        let table = Numbers::read(METRICS).table();
        assert_eq!(
            table,
            "  produced       lag  received       hot   durable gold rows fresh p50       p99\n    \
             12,345         5    12,340        40    12,300    12,338    5.0 ms     1.5 s"
        );
    }

    #[test]
    fn without_a_gold_row_there_is_no_freshness() {
        let numbers = Numbers::read("candleflight_producer_records_total 1");
        assert!(!numbers.has_gold());
        assert!(numbers.to_string().ends_with("gold 0, freshness p50 - p99 -"));
    }
}
