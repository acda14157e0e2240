//! The HTTP endpoint of a service: `/health` (the process answers), `/ready` (it does its work), `/metrics` (Prometheus).

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::metrics::Metrics;

/// Serves the endpoint on `listener` until the process ends.
///
/// # Errors
///
/// The listener's error, if it stops accepting.
pub async fn serve(listener: TcpListener, metrics: Metrics) -> anyhow::Result<()> {
    let router = Router::new()
        .route("/health", get(async || "ok\n"))
        .route("/ready", get(ready))
        .route("/metrics", get(prometheus))
        .with_state(metrics);
    axum::serve(listener, router).await?;
    Ok(())
}

async fn ready(State(metrics): State<Metrics>) -> impl IntoResponse {
    let (all_ready, lines) = metrics.readiness();
    let status = if all_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, lines)
}

async fn prometheus(State(metrics): State<Metrics>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], metrics.encode())
}
