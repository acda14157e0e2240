//! Health checking as gRPC defines it (`grpc.health.v1`): the readiness that the status page shows, for load balancers and orchestrators.

use arrow_flight::flight_service_server::FlightServiceServer;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::server::NamedService;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::server::{HealthReporter, health_reporter};

use crate::server::Server;

/// Path of the calls. They need no log-in: an orchestrator has none, and the answer is one of two words.
pub(crate) const PATH: &str = "/grpc.health.v1.Health/";
/// Names that can be asked for: the whole server, and the one service that it has.
const NAMES: [&str; 2] = ["", <FlightServiceServer<Server> as NamedService>::NAME];

/// Returns the service that answers, and what tells it whether the server is ready.
pub(crate) fn service() -> (HealthReporter, HealthServer<impl Health>) {
    health_reporter()
}

/// Keeps the answers at what `is_ready` says until the server stops; then the streams of watchers end.
pub(crate) async fn report(
    mut reporter: HealthReporter,
    mut is_ready: watch::Receiver<bool>,
    stopping: CancellationToken,
) {
    loop {
        let is_serving = *is_ready.borrow_and_update() && !stopping.is_cancelled();
        let status = if is_serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        for name in NAMES {
            reporter.set_service_status(name, status).await;
        }
        if stopping.is_cancelled() {
            break;
        }
        tokio::select! {
            () = stopping.cancelled() => {}
            // The server's own numbers hold the sender.
            _ = is_ready.changed() => {}
        }
    }
    for name in NAMES {
        reporter.clear_service_status(name).await;
    }
}

#[cfg(test)]
mod tests;
