//! Follows gold and writes each row that changes as a line of JSON. A file keeps the position, and the next start continues there.
//!
//! ```sh
//! cargo run --example follow -- position.json                   # without the file, starts with rows that change from now on
//! cargo run --example follow -- position.json --from '{}'       # or with all of gold
//! ```
//!
//! A row replaces the previous one of its symbol and event time. Rows written just before a crash are written again.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use anyhow::Context as _;
use arrow::json::LineDelimitedWriter;
use clap::Parser;
use futures::TryStreamExt as _;
use proto::Message as _;
use proto::ticket::Ticket;
use serde_json::{Value, json};
use transport::client::{self, ClientError};

/// Pause before the next connection.
const PAUSE: Duration = Duration::from_millis(500);

#[derive(Debug, Parser)]
struct Args {
    /// File with the position.
    position: PathBuf,
    /// Start without such a file, as in a ticket: "now", {"time":"2026-01-01T00:00:00Z"} or {"0":128}.
    #[arg(long, default_value = r#""now""#)]
    from: String,
    /// Address of the Flight server.
    #[arg(long, env = "CANDLEFLIGHT_FLIGHT", default_value = "grpc://127.0.0.1:50051")]
    flight: String,
    #[command(flatten)]
    access: access::Identity,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    loop {
        let Err(error) = follow(&args).await else { continue };
        let passes = error.downcast_ref().is_some_and(ClientError::is_transient);
        if !passes {
            return Err(error);
        }
        eprintln!("reconnecting: {error:#}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Follows until the server ends the stream.
async fn follow(args: &Args) -> anyhow::Result<()> {
    let mut position = read_position(&args.position)?;
    let from: Value = if position.is_empty() {
        serde_json::from_str(&args.from).context("--from is not JSON")?
    } else {
        json!(position)
    };
    let ticket = Ticket::decode(json!({ "read": "gold", "from": from }).to_string().as_bytes())?;
    let mut client = client::connect(&args.flight, &args.access).await?;
    let mut batches = pin!(client::follow(&mut client, &ticket).await?);
    while let Some(batch) = batches.try_next().await? {
        let mut output = io::stdout().lock();
        LineDelimitedWriter::new(&mut output).write(&batch.rows)?;
        output.flush()?;
        // The position is saved after the rows, so a restart from it misses none.
        position.insert(batch.range.partition, batch.range.next);
        write_position(&args.position, &position)?;
    }
    Ok(())
}

fn read_position(file: &Path) -> anyhow::Result<BTreeMap<i32, i64>> {
    match fs::read(file) {
        Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| format!("read {}", file.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(error.into()),
    }
}

/// Replaces the file atomically.
fn write_position(file: &Path, position: &BTreeMap<i32, i64>) -> anyhow::Result<()> {
    let next = file.with_extension("next");
    fs::write(&next, json!(position).to_string())?;
    Ok(fs::rename(next, file)?)
}
