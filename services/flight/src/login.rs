//! Authentication of each call, before the server reads the call itself.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::task::{Context, Poll};

use access::{Caller, Guard, Role};
use futures::future::BoxFuture;
use http::header::AUTHORIZATION;
use http::{Extensions, HeaderValue, Request, Response};
use tonic::body::Body;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use tower::{Layer, Service};

use crate::error::CallError;
use crate::metrics::Metrics;
use crate::status::status;

/// Path of the health calls. They need no login: an orchestrator has no credentials, and the answer is only one of two words.
const HEALTH_PATH: &str = "/grpc.health.v1.Health/";

/// New token of the caller. A handshake repeats it in its payload.
#[derive(Clone, Debug)]
pub(crate) struct NewToken(pub(crate) String);

/// Layer that puts [`Login`] in front of a service.
#[derive(Clone, Debug)]
pub(crate) struct LoginLayer {
    pub(crate) guard: Arc<Guard>,
    pub(crate) metrics: Metrics,
}

/// Service that authenticates each call. It adds the [`Caller`] to the extensions of an accepted call. It returns new tokens in the
/// `authorization` header of the response, as Flight clients expect.
#[derive(Clone, Debug)]
pub(crate) struct Login<S> {
    service: S,
    layer: LoginLayer,
}

impl<S> Layer<S> for LoginLayer {
    type Service = Login<S>;

    fn layer(&self, service: S) -> Login<S> {
        Login { service, layer: self.clone() }
    }
}

impl<S> Service<Request<Body>> for Login<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // `poll_ready` ran on this service, so the call goes to it and not to its clone.
        let waiting = self.service.clone();
        let mut service = std::mem::replace(&mut self.service, waiting);
        if request.uri().path().starts_with(HEALTH_PATH) {
            return Box::pin(async move { service.call(request).await });
        }
        let layer = self.layer.clone();
        Box::pin(async move {
            let peer = peer(request.extensions());
            let admitted = match layer.guard.admit(request.headers().get(AUTHORIZATION), peer).await {
                Ok(admitted) => admitted,
                Err(denied) => {
                    layer.metrics.denied.inc();
                    return Ok(status(&CallError::Denied(denied)).into_http());
                }
            };
            request.extensions_mut().insert(admitted.caller);
            // Removed here, so that no later service can log the credentials.
            request.headers_mut().remove(AUTHORIZATION);
            let Some(token) = admitted.token else { return service.call(request).await };
            let mut header = HeaderValue::try_from(format!("Bearer {token}")).expect("a token is base64");
            header.set_sensitive(true);
            request.extensions_mut().insert(NewToken(token));
            let mut response = service.call(request).await?;
            response.headers_mut().insert(AUTHORIZATION, header);
            Ok(response)
        })
    }
}

fn peer(extensions: &Extensions) -> IpAddr {
    let tcp = extensions.get::<TcpConnectInfo>();
    let tls = extensions.get::<TlsConnectInfo<TcpConnectInfo>>().map(TlsConnectInfo::get_ref);
    let address = tcp.or(tls).and_then(TcpConnectInfo::remote_addr);
    address.map_or(Ipv4Addr::UNSPECIFIED.into(), |address| address.ip())
}

/// Returns the caller of a call.
pub(crate) fn caller(extensions: &Extensions) -> Caller {
    extensions.get::<Caller>().cloned().expect("the login layer adds the caller to each call")
}

/// Checks that the caller's role includes `role`.
///
/// # Errors
///
/// [`CallError::Forbidden`].
pub(crate) fn require(extensions: &Extensions, role: Role) -> Result<(), CallError> {
    let caller = caller(extensions);
    if caller.role >= role {
        return Ok(());
    }
    Err(CallError::Forbidden { user: caller.user.to_string(), role: caller.role, needed: role })
}
