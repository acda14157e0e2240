//! The Flight server. It receives bronze batches, keeps them in memory, makes them durable, and serves followers and SQL queries. Every
//! query reads one snapshot of the durable and the hot rows.

mod actions;
mod answers;
mod config;
mod health;
mod login;
mod request;
mod server;
mod sizes;
mod status;

mod bronze;
mod follow;
mod gold;
mod ipc;

mod catalog;
mod late_table;
mod queries;
mod sql;
mod system;

mod error;
mod metrics;

use std::sync::Arc;
use std::time::Duration;

use access::ServerTls;
use futures::future::BoxFuture;
use lake::{Lake, LakeError, Table};
use service::Context;
use service::backoff::Backoff;
use service::error::sentence;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Identity, Server as GrpcServer, ServerTlsConfig};

use crate::bronze::buffer::HotBuffer;
use crate::bronze::flush;
use crate::catalog::Catalog;
pub use crate::config::Config;
pub use crate::error::Error;
use crate::gold::table::GoldTable;
use crate::login::LoginLayer;
use crate::metrics::Metrics;
pub use crate::queries::Limits;
use crate::queries::Queries;
use crate::server::Server;
use crate::sizes::BySize;
use crate::sql::Sql;

/// Longest silence of a connection before the server sends a ping. A connection that does not answer within the same time is closed.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Longest time for a TLS handshake.
const TLS_HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Maximum number of concurrently processed calls of one connection. Further calls wait.
const CALLS_MAX: usize = 64;
/// Maximum number of open calls of one connection. Further calls are not accepted.
const STREAMS_MAX: u32 = 256;
/// Longest time that queries may continue after the server starts to stop. It is well below the limit of a drain, so that the hot rows are
/// still flushed.
const LEAVE_MAX: Duration = Duration::from_secs(3);

/// Listens on `config.listen` and serves until `context.shutdown`, then flushes the hot rows and returns.
///
/// # Errors
///
/// [`Error`]: the address is in use, or the lake fails permanently (it is fenced, has a different schema, or has no put-if-absent).
// Boxed, so that the future is compiled in this crate and not in each crate that awaits it.
pub fn run(config: Config, context: Context) -> BoxFuture<'static, Result<(), Error>> {
    Box::pin(async move {
        let listener = TcpListener::bind(config.listen).await;
        let listener = listener.map_err(|source| Error::Listen { address: config.listen, source })?;
        run_on(listener, config, context).await
    })
}

/// Does the same as [`run`], on a listener that is already bound (tests and `up` bind port 0).
///
/// # Errors
///
/// The errors of [`run`].
pub fn run_on(
    listener: TcpListener,
    config: Config,
    context: Context,
) -> BoxFuture<'static, Result<(), Error>> {
    Box::pin(async move {
        context.access.check_listen(
            listener.local_addr().map_err(|source| Error::Listen { address: config.listen, source })?,
        )?;
        if context.access.is_open() {
            tracing::info!(
                "no password is set: only clients on this machine can connect, and they have full access"
            );
        }
        let metrics = Metrics::new(&context.metrics);
        metrics.set_ready(Err("opening the lake".to_owned()));
        let Some((lake, table)) = open(&config, &context, &metrics).await? else { return Ok(()) };
        let durable = table.snapshot();
        tracing::info!(version = durable.version(), rows = durable.row_count(), position = %durable.position(), "opened bronze");
        metrics.observe_durable(&durable);
        let hot = Arc::new(HotBuffer::new(durable));
        metrics.observe_hot(&hot);
        let queries = Queries::new(config.limits.clone(), metrics.clone()).map_err(Error::Engine)?;
        let gold = Arc::new(GoldTable::new(lake, config.topic.clone()));
        let catalog =
            Catalog::new(Arc::clone(&hot), Arc::clone(&gold), context.status.clone(), queries.clone());
        let sql = Sql { catalog: Arc::new(catalog), queries: queries.clone() };

        // Puts and followers end first. Then the flusher makes their rows durable.
        let calls = context.shutdown.child_token();
        let server = Server {
            hot: Arc::clone(&hot),
            hot_bytes_max: config.hot_bytes_max,
            changes: Arc::default(),
            sql,
            metrics: metrics.clone(),
            known: context.status.clone(),
            shutdown: calls.clone(),
        };
        let (reporter, health) = health::service();
        let flushed = CancellationToken::new();
        let flusher = flush::run(table, hot, &config, &metrics, flushed.clone());
        let serving = grpc_server(context.access.tls.as_deref())?
            .http2_keepalive_interval(Some(KEEP_ALIVE))
            .http2_keepalive_timeout(Some(KEEP_ALIVE))
            .concurrency_limit_per_connection(CALLS_MAX)
            .max_concurrent_streams(STREAMS_MAX)
            .max_frame_size(Some(transport::FRAME_BYTES_MAX))
            .layer(LoginLayer { guard: Arc::clone(&context.access.guard), metrics: metrics.clone() })
            .add_service(BySize::new(server))
            .add_service(health)
            .serve_with_incoming_shutdown(
                TcpIncoming::from(listener).with_nodelay(Some(true)),
                calls.cancelled(),
            );
        metrics.set_ready(Ok(()));
        let reporting = health::report(reporter, metrics.watch_ready(), calls.clone());
        let opening = calls.run_until_cancelled(open_gold(&queries, gold));
        let served = async {
            let served = tokio::select! {
                served = serving => served,
                () = cut_off(&calls) => Ok(()),
            };
            flushed.cancel();
            served
        };
        // If the flusher fails permanently (fenced), all calls also end.
        let flushed = async {
            let result = flusher.await;
            calls.cancel();
            result
        };
        let (served, flushed, _, ()) = tokio::join!(served, flushed, opening, reporting);
        metrics.set_ready(Err("stopped".to_owned()));
        flushed?;
        Ok(served?)
    })
}

/// Opens the lake and bronze. Retries while the store is unreachable or denies access. Returns `None` if the service must stop first.
async fn open(
    config: &Config,
    context: &Context,
    metrics: &Metrics,
) -> Result<Option<(Lake, Table)>, LakeError> {
    let report = |error: &LakeError| {
        tracing::warn!(error = error as &dyn std::error::Error, "open the lake, trying again");
        metrics.set_ready(Err(sentence(error)));
    };
    let mut backoff = Backoff::default();
    loop {
        let open = async {
            let lake = Lake::open(&config.lake).await?;
            lake.probe().await?;
            let table = Table::open(&lake, lake::bronze(&config.topic)).await?;
            Ok((lake, table))
        };
        let error = match context.shutdown.run_until_cancelled(open).await {
            None => return Ok(None),
            Some(Ok(opened)) => return Ok(Some(opened)),
            Some(Err(error)) => error,
        };
        let retried = backoff.after(error, LakeError::is_transient, report, &context.shutdown).await;
        if let Err(gave_up) = retried {
            return gave_up.unless_stopped().map(|()| None);
        }
    }
}

/// Opens gold before the first request for it, on the query threads.
async fn open_gold(queries: &Queries, gold: Arc<GoldTable>) {
    if let Err(error) = queries.prepare(async move { Ok(gold.snapshot().await?) }).await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "opening gold failed; the first query on it tries again"
        );
    }
}

/// Returns once clients have had [`LEAVE_MAX`] to disconnect from a stopping server. Without this limit, a result that no client reads
/// would keep the server running indefinitely.
async fn cut_off(stopping: &CancellationToken) {
    stopping.cancelled().await;
    tokio::time::sleep(LEAVE_MAX).await;
    tracing::info!("closing the connections that are still open");
}

/// Returns a server builder, with TLS if a certificate is set. The server requires client certificates if client authorities are set.
fn grpc_server(tls: Option<&ServerTls>) -> Result<GrpcServer, Error> {
    let Some(tls) = tls else { return Ok(GrpcServer::builder()) };
    let mut config = ServerTlsConfig::new()
        .identity(Identity::from_pem(&tls.certificate, &tls.key))
        .timeout(TLS_HANDSHAKE_MAX);
    if let Some(authorities) = &tls.client_authorities {
        config = config.client_ca_root(Certificate::from_pem(authorities));
    }
    Ok(GrpcServer::builder().tls_config(config)?)
}
