//! Reports to the Flight server, which collects the status of the whole pipeline.

use std::convert::Infallible;
use std::time::Duration;

use anyhow::Context as _;
use proto::{Encoding, Message as _};
use service::Context as Service;
use service::status::{INTERVAL, Report};
use tokio::time::{MissedTickBehavior, interval, timeout};
use transport::client::Client;

/// Longest time for one exchange. After it, the next exchange opens a new connection.
const EXCHANGE_MAX: Duration = Duration::from_secs(3);

/// Sends the status of this process to the Flight server every second, and stores the status of the other processes from the answer. Never
/// returns. While the server is unreachable, which the service itself reports, only the status of this process is known.
pub(crate) async fn run(flight: &str, service: &Service) -> Infallible {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut client = None;
    loop {
        ticks.tick().await;
        let exchanged = timeout(EXCHANGE_MAX, exchange(&mut client, flight, service)).await;
        if let Err(error) = exchanged.context("no answer in time").flatten() {
            tracing::debug!(error = format!("{error:#}"), "cannot report to the Flight server");
            client = None;
        }
    }
}

async fn exchange(client: &mut Option<Client>, flight: &str, service: &Service) -> anyhow::Result<()> {
    let client = match client {
        Some(client) => client,
        None => client.insert(transport::client::connect(flight, &service.access.client).await?),
    };
    let own = service.status.own().encode(Encoding::Protobuf);
    for report in transport::client::report(client, own).await? {
        service.status.record(Report::decode(&report)?);
    }
    Ok(())
}
