//! `status`: the status page in a terminal.

use std::io::Write as _;

use anyhow::{Context as _, ensure};
use arrow::datatypes::TimestampMicrosecondType;
use arrow::temporal_conversions::as_datetime;
use service::http;
use service::status::{INTERVAL, Partition, ProcessEvent, ProcessStatus, View};

use crate::numbers::{count, seconds};

/// Maximum number of events, and of dead letters, that are shown.
const EVENTS_MAX: usize = 10;

/// Flags of `status`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Status page of any running service, as given by its --status-addr or printed at start. Each one shows the whole pipeline.
    #[arg(env = "CANDLEFLIGHT_STATUS_ADDR", default_value = crate::up::STATUS_ADDR, value_name = "HOST:PORT")]
    address: String,
    /// Print JSON, in the form that the status page reads.
    #[arg(long)]
    json: bool,
    /// Print the status again every second.
    #[arg(long, conflicts_with = "json")]
    watch: bool,
    #[command(flatten)]
    access: access::Identity,
}

/// Prints the status once, or every second.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    loop {
        let (status, json) = http::get(&args.address, "/status.json", &args.access).await?;
        ensure!(status == 200, "{} answered with status {status}: {}", args.address, json.trim());
        let text = if args.json {
            json + "\n"
        } else {
            let view: View = serde_json::from_str(&json).with_context(|| {
                format!(
                    "read the status of {}; does it have another version than this program?",
                    args.address
                )
            })?;
            text(&view)
        };
        // The sequence clears the screen, as `watch` does.
        let clear = if args.watch { "\x1b[2J\x1b[H" } else { "" };
        write!(std::io::stdout(), "{clear}{text}")?;
        if !args.watch {
            return Ok(());
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

fn text(view: &View) -> String {
    let View { numbers, now, .. } = view;
    let quantile = |quantile: Option<f64>| quantile.map_or("-".to_owned(), seconds);
    let ago = |epoch_seconds: f64| match epoch_seconds {
        0.0 => "not yet".to_owned(),
        then => format!("{} ago", seconds(since(then * 1e6, now.at_micros))),
    };
    let mut lines = vec![
        format!(
            "produced {} ({:.0}/s)  ->  bronze {} ({:.0}/s; {} hot, {} durable)  ->  gold {} ({:.0}/s)",
            count(numbers.produced),
            now.produced_per_second,
            count(numbers.received),
            now.received_per_second,
            count(numbers.hot),
            count(numbers.durable),
            count(numbers.gold),
            now.gold_per_second,
        ),
        format!(
            "freshness p50 {}, p99 {} (last minute); lag {}; dead letters {}",
            quantile(now.freshness_p50),
            quantile(now.freshness_p99),
            count(numbers.lag),
            count(numbers.dead_letters),
        ),
        format!(
            "bronze flushed {}; gold committed to PostgreSQL {}, to the lake {}",
            ago(numbers.bronze_flushed),
            ago(numbers.postgres_committed),
            ago(numbers.lake_committed)
        ),
        String::new(),
        row(["partition", "end", "received", "durable", "postgres", "lake"]),
    ];
    lines.extend(numbers.partitions.iter().map(partition_row));
    lines.push(String::new());
    for ProcessStatus { process, is_silent, heard_micros, services } in &view.processes {
        let suffix = if *is_silent {
            format!("  SILENT for {}", seconds(since(as_f64(*heard_micros), now.at_micros)))
        } else {
            String::new()
        };
        let services = services.iter().map(|(service, reason)| match reason {
            None => format!("{service}: ready"),
            Some(reason) => format!("{service}: {reason}"),
        });
        lines.push(format!("{}  {}{suffix}", process.id, services.collect::<Vec<_>>().join(", ")));
    }
    push_events(&mut lines, "warnings and errors", &view.events);
    push_events(&mut lines, "dead letters", &view.dead_letters);
    lines.join("\n") + "\n"
}

fn push_events(lines: &mut Vec<String>, what: &str, events: &[ProcessEvent]) {
    if events.is_empty() {
        return;
    }
    lines.push(format!("\nlatest {what}"));
    for ProcessEvent { process, event } in events.iter().take(EVENTS_MAX) {
        let at = as_datetime::<TimestampMicrosecondType>(event.at_micros);
        let at = at.map_or_else(String::new, |at| at.format("%Y-%m-%d %H:%M:%SZ").to_string());
        let fields = event.fields.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>();
        lines.push(format!("{at} {} {process}: {} {}", event.level, event.message, fields.join(" ")));
    }
}

fn partition_row(partition: &Partition) -> String {
    let offset = |offset: Option<i64>| offset.map_or_else(|| "-".to_owned(), |offset| offset.to_string());
    let Partition { partition, end, received, durable, postgres, lake } = partition;
    let cells = [end, received, durable, postgres, lake].map(|next| offset(*next));
    let [end, received, durable, postgres, lake] = &cells;
    row([&partition.to_string(), end, received, durable, postgres, lake])
}

fn row(cells: [&str; 6]) -> String {
    cells.iter().map(|cell| format!("{cell:>12}")).collect()
}

/// Returns the seconds from `then` to `now`, both in microseconds.
fn since(then_micros: f64, now_micros: i64) -> f64 {
    ((as_f64(now_micros) - then_micros) / 1e6).max(0.0)
}

#[expect(clippy::cast_precision_loss, reason = "microseconds of this century fit")]
fn as_f64(micros: i64) -> f64 {
    micros as f64
}
