//! Tests of the reports of this and other processes, and of the history.

use tracing_subscriber::layer::SubscriberExt as _;

use super::history::History;
use super::{DEAD_LETTER_TARGET, Events, Numbers, Process, Report, Status};
use crate::metrics::Metrics;

#[derive(Debug, thiserror::Error)]
#[error("write")]
struct Flush(#[source] std::io::Error);

fn report(id: &str, at_micros: i64, metrics: &str) -> Report {
    let process = Process { id: id.to_owned(), ..Process::default() };
    Report { process, at_micros, metrics: metrics.to_owned(), ..Report::default() }
}

#[test]
fn others_count_until_they_are_silent_and_are_then_forgotten() {
    let status = Status::default();
    let now = crate::clock::now_micros();
    let hot = "candleflight_bronze_hot_rows 7\n";
    status.record(report("young", now, hot));
    status.record(report("silent", now - 10_000_000, hot));
    status.record(report("old", now - 100_000_000, hot));
    let view = status.view();
    let seen: Vec<_> =
        view.processes.iter().skip(1).map(|seen| (seen.process.id.as_str(), seen.is_silent)).collect();
    assert_eq!(seen, [("silent", true), ("young", false)]);
    assert_eq!(view.numbers.hot, 7.0);
}

#[test]
fn a_later_report_replaces_an_earlier_one_and_the_own_report_is_ignored() {
    let status = Status::default();
    let now = crate::clock::now_micros();
    status.record(report("other", now, "candleflight_bronze_hot_rows 1\n"));
    status.record(report("other", now, "candleflight_bronze_hot_rows 2\n"));
    status.record(status.own());
    assert_eq!(status.reports().len(), 2);
    assert_eq!(status.view().numbers.hot, 2.0);
}

#[test]
fn positions_are_read_by_partition_and_sink() {
    let text = "\
candleflight_bronze_received_offset{partition=\"11\"} 300
candleflight_bronze_received_offset{partition=\"2\"} 200
candleflight_gold_position_offset{sink=\"postgres\",partition=\"2\"} 190
candleflight_gold_position_offset{sink=\"lake\",partition=\"2\"} 100
";
    let partitions = Numbers::read(text).partitions;
    let read: Vec<_> =
        partitions.iter().map(|p| (p.partition, p.received, p.postgres, p.lake, p.end)).collect();
    assert_eq!(read, [(2, Some(200), Some(190), Some(100), None), (11, Some(300), None, None, None)]);
}

#[test]
fn rates_are_of_the_last_seconds_and_freshness_of_the_last_minute() {
    let mut history = History::default();
    let numbers = |produced: f64, fast: u64, all: u64| {
        Numbers::read(&format!(
            "candleflight_producer_records_total {produced}\n\
             candleflight_freshness_seconds_bucket{{le=\"0.01\"}} {fast}\n\
             candleflight_freshness_seconds_bucket{{le=\"5.0\"}} {all}\n"
        ))
    };
    // The start is slow; then ten records a second follow, all fast.
    history.push(0, numbers(0.0, 0, 10));
    for second in 1..=100_u32 {
        let count = 10 * u64::from(second);
        history.push(i64::from(second) * 1_000_000, numbers(10.0 * f64::from(second), count, 10 + count));
    }
    let last = history.samples().last().unwrap();
    assert_eq!((last.produced_per_second, last.freshness_p99), (10.0, Some(0.01)));
    let first = history.samples().next().unwrap();
    assert_eq!((first.produced_per_second, first.freshness_p99), (0.0, Some(5.0)));
    // The producer was restarted.
    assert_eq!(history.sample(101_000_000, &numbers(0.0, 1000, 1010)).produced_per_second, 0.0);
    assert_eq!(history.recent(numbers(0.0, 1000, 1010)).freshness.quantile(0.5), Some(0.01));
}

#[test]
fn warnings_are_kept_with_their_causes_and_dead_letters_apart() {
    let events = Events::default();
    let status = Status::new("test", Metrics::default(), events.clone());
    let subscriber = tracing_subscriber::registry().with(events);
    tracing::subscriber::with_default(subscriber, || {
        tracing::info!("not kept");
        let cause = std::io::Error::other("disk full");
        let error = Flush(cause);
        tracing::warn!(error = &error as &dyn std::error::Error, partition = 3, "flush failed");
        tracing::warn!(target: DEAD_LETTER_TARGET, reason = "not_json", "dead letters");
    });
    let report = status.own();
    assert_eq!(report.events.len(), 1);
    assert_eq!(report.events[0].message, "flush failed");
    assert_eq!(report.events[0].fields["partition"], "3");
    assert_eq!(report.events[0].fields["error"], "write: disk full");
    assert_eq!(report.dead_letters.len(), 1);
    assert_eq!(report.dead_letters[0].fields["reason"], "not_json");
}
