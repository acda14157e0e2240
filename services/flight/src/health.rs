//! Health checks of gRPC (`grpc.health.v1`) for load balancers and orchestrators. They report the readiness that the status page shows.

use arrow_flight::flight_service_server::FlightServiceServer;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::server::NamedService;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::server::{HealthReporter, health_reporter};

use crate::server::Server;

/// Service names that have a health status: the whole server, and its one service.
const NAMES: [&str; 2] = ["", <FlightServiceServer<Server> as NamedService>::NAME];

/// Returns the health service, and the reporter that sets its status.
pub(crate) fn service() -> (HealthReporter, HealthServer<impl Health>) {
    health_reporter()
}

/// Reports the value of `is_ready` until the server stops. Then the streams of watchers end.
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
            // The change cannot fail: the server's metrics hold the sender.
            _ = is_ready.changed() => {}
        }
    }
    for name in NAMES {
        reporter.clear_service_status(name).await;
    }
}

#[cfg(test)]
mod tests;
