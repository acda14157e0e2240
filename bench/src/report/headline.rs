//! Headlines: the figures that a new reader looks for first, in plain words.

use super::{join, number, verdict, with_arrow};
use crate::figure::{Aim, Figure, median};

const HEAD: &str = "| what | Candleflight | best alternative, in the same run | compared with it | aim | verdict |\n\
                    |---|---|---|---|---|---|\n";

/// Figure that is shown as a headline.
struct Headline {
    /// Measurement that the figure belongs to.
    measurement: &'static str,
    /// Beginning of the figure's name, with the number of rows that the label states.
    start: &'static str,
    /// Name of the measured quantity for a reader who does not know the project.
    label: &'static str,
}

/// Headlines in the order of their table.
const HEADLINES: &[Headline] = &[
    Headline {
        measurement: "freshness",
        start: "freshness at 1000/s, p99",
        label: "delay from Kafka to gold at 1,000 candles/s, 99th percentile",
    },
    Headline {
        measurement: "backfill",
        start: "backfill of 6914048 candles",
        label: "time to load 6.9 million candles from Kafka into gold, in PostgreSQL and the lake",
    },
    Headline {
        measurement: "ingest",
        start: "Kafka → durable bronze, 1 partition",
        label: "candles from Kafka into Parquet files in the object store",
    },
    Headline {
        measurement: "json",
        start: "JSON → columns, one thread",
        label: "JSON messages decoded into columns, on one thread",
    },
    Headline {
        measurement: "kernel",
        start: "gold kernel: nine metrics and the counts of 7000000 candles",
        label: "time to compute nine metrics of 7 million candles, in new memory",
    },
    Headline {
        measurement: "get",
        start: "DoGet from the hot buffer",
        label: "rows in memory sent to a client by Arrow Flight",
    },
    Headline {
        measurement: "sql",
        start: "SQL on 7000000 rows: the last 1,000 rows of a symbol",
        label: "SQL: the newest 1,000 rows of a symbol, of 7 million rows",
    },
    Headline {
        measurement: "sql",
        start: "SQL on 7000000 rows: aggregates of all rows by symbol",
        label: "SQL: aggregates of all 7 million rows by symbol",
    },
    Headline {
        measurement: "memory",
        start: "idle at 10 records/s, four processes",
        label: "memory of all four services together, at 10 candles/s",
    },
    Headline {
        measurement: "start",
        start: "all services again, 7000000 rows in bronze and gold, after SIGKILL",
        label: "restart of all services after a kill, with 7 million rows, until the first new gold row",
    },
];

impl Headline {
    /// Returns the first figure of this measurement whose name begins like this.
    fn find<'a>(&self, figures: &'a [Figure]) -> Option<&'a Figure> {
        figures
            .iter()
            .find(|figure| figure.measurement == self.measurement && figure.what.starts_with(self.start))
    }
}

/// Writes the headlines as one table, with the medians of the runs. Leaves out those without a figure.
pub(super) fn table(figures: &[Figure]) -> String {
    let lines = HEADLINES.iter().filter_map(|headline| Some(line(headline.label, headline.find(figures)?)));
    format!("{HEAD}{}", lines.collect::<String>())
}

fn line(label: &str, figure: &Figure) -> String {
    let (ours, unit) = (median(&figure.ours), &figure.unit);
    let (best, ratio) = figure
        .best_other()
        .map(|(name, value)| (format!("{name}: {}", number(value)), words(figure, ours / value)))
        .unwrap_or_default();
    let aims = figure.aims.iter().map(|aim| match aim {
        Aim::AtLeast(bound) => format!("at least {} {unit}", number(*bound)),
        Aim::AtMost(bound) => format!("at most {} {unit}", number(*bound)),
        Aim::TimesLeast(times) if *times > 1.0 => format!("at most {}", words(figure, *times)),
        Aim::TimesGreatest(times) | Aim::TimesLeast(times) => format!("at least {}", words(figure, *times)),
    });
    let ours = format!("**{}** {unit}", number(ours));
    let (what, aims) = (with_arrow(figure, label), join(aims));
    format!("| {what} | {ours} | {best} | {ratio} | {aims} | {} |\n", verdict(figure))
}

/// Writes the ratio of a rate or a duration to that of the alternative in words.
fn words(figure: &Figure, ratio: f64) -> String {
    let speed = if figure.more_is_better() { ratio } else { 1.0 / ratio };
    if speed >= 1.0 {
        format!("{} times as fast", number(speed))
    } else if figure.more_is_better() {
        format!("{} × the rate", number(ratio))
    } else {
        format!("{} × the time", number(ratio))
    }
}

#[cfg(test)]
mod tests {
    use super::{HEADLINES, line, table};
    use crate::figure::{Aim, Figure};

    #[test]
    fn every_headline_is_a_published_figure() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/performance/values.json");
        let figures: Vec<Figure> = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        for headline in HEADLINES {
            assert!(headline.find(&figures).is_some(), "no figure begins with {}", headline.start);
        }
    }

    #[test]
    fn a_headline_without_a_figure_is_left_out() {
        let figure = Figure::new("get", "DoGet from the hot buffer", "GB/s", vec![1.0]);
        let table = table(&[figure]);
        assert_eq!(table.lines().count(), 3, "{table}");
        assert!(
            table.ends_with(
                "| ↑ rows in memory sent to a client by Arrow Flight | **1.00** GB/s |  |  |  |  |\n"
            ),
            "{table}"
        );
    }

    #[test]
    fn a_headline_is_compared_with_the_best_other_in_words() {
        let check = |unit: &str, ours: f64, aim: Aim, expected: &str| {
            let figure = Figure::new("", "", unit, vec![ours]);
            let figure = figure.beside("low", vec![10.0]).beside("high", vec![20.0]).aim(aim);
            assert_eq!(line("it", &figure), format!("| {expected} |\n"));
        };
        check(
            "rows/s",
            30.0,
            Aim::TimesGreatest(1.2),
            "↑ it | **30.0** rows/s | high: 20.0 | 1.50 times as fast | at least 1.20 times as fast | met",
        );
        check(
            "rows/s",
            5.0,
            Aim::TimesGreatest(0.8),
            "↑ it | **5.00** rows/s | high: 20.0 | 0.250 × the rate | at least 0.800 × the rate | **not met**",
        );
        check(
            "s",
            4.0,
            Aim::TimesLeast(0.5),
            "↓ it | **4.00** s | low: 10.0 | 2.50 times as fast | at least 2.00 times as fast | met",
        );
        check(
            "s",
            15.0,
            Aim::TimesLeast(1.2),
            "↓ it | **15.0** s | low: 10.0 | 1.50 × the time | at most 1.20 × the time | **not met**",
        );
        check(
            "s",
            4.0,
            Aim::AtMost(3.0),
            "↓ it | **4.00** s | low: 10.0 | 2.50 times as fast | at most 3.00 s | **not met**",
        );
    }
}
