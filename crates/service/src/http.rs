//! The HTTP endpoint of a service: `/` (the status page), `/status.json` (the same for programs), `/health` (the process answers), `/ready`
//! (it does its work), `/metrics` (Prometheus).

use std::time::Duration;

use anyhow::{Context as _, bail};
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{Html, IntoResponse};
use axum::routing;
use axum::{Json, Router};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{MissedTickBehavior, timeout};

use crate::status::{self, Status};

/// How long an answer may take: the endpoint answers from memory.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Largest answer that is read, in bytes; five minutes of status take a quarter of it.
const ANSWER_BYTES_MAX: u64 = 1024 * 1024;

/// The status page: one file, which asks for `/status.json` every second and needs nothing else.
const PAGE: &str = include_str!("status/page.html");

/// Serves the endpoint on `listener`, and samples the numbers that it shows, until the process ends.
///
/// # Errors
///
/// The listener's error, if it stops accepting.
pub async fn serve(listener: TcpListener, status: Status) -> anyhow::Result<()> {
    status.set_address(listener.local_addr()?);
    let router = Router::new()
        .route("/", routing::get(async || Html(PAGE)))
        .route("/status.json", routing::get(async |State(status): State<Status>| Json(status.view())))
        .route("/health", routing::get(async || "ok\n"))
        .route("/ready", routing::get(ready))
        .route("/metrics", routing::get(prometheus))
        .with_state(status.clone());
    let sampling = async {
        let mut ticks = tokio::time::interval(status::INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            status.sample();
        }
    };
    tokio::select! {
        served = async { axum::serve(listener, router).await } => Ok(served?),
        never = sampling => never,
    }
}

async fn ready(State(status): State<Status>) -> impl IntoResponse {
    let (all_ready, lines) = status.metrics().readiness();
    let status = if all_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, lines)
}

async fn prometheus(State(status): State<Status>) -> impl IntoResponse {
    (
        [(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")],
        status.metrics().encode(),
    )
}

/// Asks the endpoint at `address` (`host:port`) for `path` and returns the status and the body.
///
/// # Errors
///
/// Nobody answers there in time, or not in HTTP.
pub async fn get(address: &str, path: &str) -> anyhow::Result<(u16, String)> {
    // HTTP/1.0 needs neither chunks nor keep-alive.
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
        let mut answer = String::new();
        stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer).await?;
        Ok::<String, std::io::Error>(answer)
    };
    let answer = match timeout(ANSWER_MAX, exchange).await {
        Ok(answer) => answer.with_context(|| format!("ask http://{address}{path}"))?,
        Err(_) => bail!("http://{address}{path} did not answer within {ANSWER_MAX:?}"),
    };
    parse(&answer).with_context(|| format!("http://{address}{path} does not speak HTTP"))
}

fn parse(answer: &str) -> Option<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/")?.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn an_answer_without_a_status_is_not_http() {
        assert_eq!(parse("SSH-2.0-OpenSSH_9.2\r\n\r\n"), None);
        assert_eq!(parse("HTTP/1.1 503 Service Unavailable\r\nx: y\r\n\r\nno"), Some((503, "no".to_owned())));
    }
}
