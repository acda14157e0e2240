//! The HTTP endpoint of a service.
//!
//! It serves `/` (the status page), `/status.json` (the same for programs), `/health` (the process runs), `/ready` (the services do their
//! work) and `/metrics` (Prometheus).

use std::net::SocketAddr;
use std::time::Duration;

use access::{Access, Denied, Identity};
use anyhow::Context as _;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Response};
use axum::routing;
use axum::{Json, Router};
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use reqwest::{Certificate, Url};
use tokio::net::TcpListener;
use tokio::time::MissedTickBehavior;

use crate::status::{self, Status};

/// Longest wait for an answer: the endpoint answers from memory.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// The status page: one file that requests `/status.json` every second and needs nothing else.
const PAGE: &str = include_str!("status/page.html");

/// Serves the endpoint on `listener` until the process ends, and adds the current numbers to the history every second.
///
/// Health, readiness and metrics are open to everyone. The status page and `/status.json` are open only to callers that `access` admits.
///
/// # Errors
///
/// The error of the listener if it can accept no more connections.
pub async fn serve(listener: TcpListener, status: Status, access: &Access) -> anyhow::Result<()> {
    status.set_address(listener.local_addr()?);
    let guarded = Router::new()
        .route("/", routing::get(async || Html(PAGE)))
        .route("/status.json", routing::get(async |State(status): State<Status>| Json(status.view())))
        .layer(middleware::from_fn_with_state(access.clone(), admit));
    let router = Router::new()
        .route("/health", routing::get(async || "ok\n"))
        .route("/ready", routing::get(ready))
        .route("/metrics", routing::get(prometheus))
        .merge(guarded)
        .with_state(status.clone())
        .into_make_service_with_connect_info::<SocketAddr>();
    let sampling = async {
        let mut ticks = tokio::time::interval(status::INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            status.sample();
        }
    };
    let server = axum_server::Server::<SocketAddr>::from_listener(listener).http1_only();
    let serving = async {
        match &access.tls {
            None => server.serve(router).await,
            Some(tls) => {
                let acceptor = RustlsAcceptor::new(RustlsConfig::from_config(tls.http_config()));
                server.acceptor(acceptor).serve(router).await
            }
        }
    };
    tokio::select! {
        served = serving => Ok(served?),
        never = sampling => never,
    }
}

/// Returns the URL of the endpoint that listens on `address`.
pub fn url(access: &Access, address: SocketAddr) -> String {
    format!("{}://{address}/", if access.tls.is_some() { "https" } else { "http" })
}

/// Passes a request on if the guard admits its caller. Otherwise, the answer is a challenge to log in.
async fn admit(
    State(access): State<Access>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    let admitted = access.guard.admit(request.headers().get(AUTHORIZATION), peer.ip()).await;
    let Err(denied) = admitted else { return next.run(request).await };
    let status = match denied {
        Denied::TooMany { .. } => StatusCode::TOO_MANY_REQUESTS,
        _ => StatusCode::UNAUTHORIZED,
    };
    let challenge = HeaderValue::from_static("Basic realm=\"Candleflight\", charset=\"UTF-8\"");
    (status, [(WWW_AUTHENTICATE, challenge)], format!("{denied}\n")).into_response()
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

/// Sends a GET request for `path` to the endpoint at `address` (`host:port`, or a URL) as `client`. Returns the status and the body.
///
/// For an address without a scheme, the request uses TLS if the client has a certificate. The services of this machine then also have one.
/// If the address is loopback or unspecified, any server certificate is accepted.
///
/// # Errors
///
/// The endpoint does not answer in time or not in HTTP, or a certificate cannot be read.
pub async fn get(address: &str, path: &str, client: &Identity) -> anyhow::Result<(u16, String)> {
    let identity = client.identity()?;
    let scheme = if identity.is_some() { "https" } else { "http" };
    let url = if address.contains("://") {
        format!("{address}{path}")
    } else {
        format!("{scheme}://{address}{path}")
    };
    let context = || format!("request {url}");
    let url = Url::parse(&url).with_context(context)?;
    let is_here = url
        .socket_addrs(|| None)?
        .iter()
        .all(|address| address.ip().is_loopback() || address.ip().is_unspecified());
    access::install_provider();
    let mut asking = reqwest::Client::builder()
        .timeout(ANSWER_MAX)
        .no_proxy()
        .tls_built_in_root_certs(url.scheme() == "https" && client.tls_ca.is_none() && !is_here)
        .danger_accept_invalid_certs(is_here);
    for authority in Certificate::from_pem_bundle(&client.authorities()?.unwrap_or_default())? {
        asking = asking.add_root_certificate(authority);
    }
    if let Some((certificate, key)) = identity {
        asking = asking.identity(reqwest::Identity::from_pem(&[certificate, key].concat())?);
    }
    let mut request = asking.build()?.get(url.clone());
    if let Some(authorization) = client.authorization() {
        request = request.header(AUTHORIZATION, authorization);
    }
    let answer = request.send().await.with_context(context)?;
    let status = answer.status().as_u16();
    Ok((status, answer.text().await.with_context(context)?))
}
