//! Metrics of the walk as text for a terminal.

use service::status::Numbers;

/// Column heads of [`table`], ten characters each.
const HEADS: &str = "\
\x20     since the start: rows                     now in bronze           freshness
  produced  received      gold       lag       hot   durable       p50       p99
";

/// Returns the metrics as a table of three lines.
pub(crate) fn table(numbers: &Numbers) -> String {
    let Numbers { produced, received, gold, lag, hot, durable, .. } = *numbers;
    let (p50, p99) = quantiles(numbers);
    let cells = [produced, received, gold, lag, hot, durable].map(count).into_iter().chain([p50, p99]);
    HEADS.to_owned() + &cells.map(|cell| format!("{cell:>10}")).collect::<String>()
}

/// Returns the metrics on one line.
pub(crate) fn line(numbers: &Numbers) -> String {
    let Numbers { produced, received, gold, lag, hot, durable, .. } = numbers;
    let (p50, p99) = quantiles(numbers);
    format!(
        "produced {produced}, received {received}, gold {gold}; lag {lag}; bronze hot {hot}, durable {durable}; \
         freshness p50 {p50}, p99 {p99}"
    )
}

fn quantiles(numbers: &Numbers) -> (String, String) {
    let quantile = |q| numbers.freshness.quantile(q).map_or("-".to_owned(), seconds);
    (quantile(0.5), quantile(0.99))
}

/// Returns a count with a separator between thousands.
pub(crate) fn count(number: f64) -> String {
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

/// Returns a duration in the unit that leaves one to three digits before the decimal point.
pub(crate) fn seconds(seconds: f64) -> String {
    if seconds < 1.0 { format!("{:.1} ms", seconds * 1e3) } else { format!("{seconds:.1} s") }
}

#[cfg(test)]
mod tests {
    use service::status::Numbers;

    use super::{line, table};

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
            line(&Numbers::read(METRICS)),
            "produced 12345, received 12340, gold 12338; lag 5; bronze hot 40, durable 12300; freshness p50 5.0 ms, p99 1.5 s"
        );
    }

    #[test]
    fn a_table_has_a_column_for_each_stage() {
        let table = table(&Numbers::read(METRICS));
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
        assert!(line(&numbers).ends_with("freshness p50 -, p99 -"));
    }
}
