//! How large a message may be, by who sends it: a message is in memory before anything of it is looked at.

use std::convert::Infallible;
use std::task::{Context, Poll};

use access::Role;
use arrow_flight::flight_service_server::FlightServiceServer;
use futures::future::BoxFuture;
use http::{Request, Response};
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

use crate::login;
use crate::server::Server;

/// Largest message of a caller who does not put, in bytes: gRPC's own default, far more than a query with its parameters.
const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Largest message of a writer's put, in bytes: other clients than ours do not split their batches.
const PUT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Largest message that is sent, in bytes: a wide row of a query's result.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Where puts are called.
const PUT_PATH: &str = "/arrow.flight.protocol.FlightService/DoPut";

/// The Flight service, behind two bounds of a message's size.
#[derive(Clone, Debug)]
pub(crate) struct BySize {
    puts: FlightServiceServer<Server>,
    others: FlightServiceServer<Server>,
}

impl BySize {
    pub(crate) fn new(server: Server) -> Self {
        let bounded = |bytes_max| {
            FlightServiceServer::new(server.clone())
                .max_decoding_message_size(bytes_max)
                .max_encoding_message_size(ANSWER_BYTES_MAX)
        };
        BySize { puts: bounded(PUT_BYTES_MAX), others: bounded(MESSAGE_BYTES_MAX) }
    }
}

impl NamedService for BySize {
    const NAME: &'static str = <FlightServiceServer<Server> as NamedService>::NAME;
}

impl Service<Request<Body>> for BySize {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let is_put =
            request.uri().path() == PUT_PATH && login::require(request.extensions(), Role::Writer).is_ok();
        if is_put { self.puts.call(request) } else { self.others.call(request) }
    }
}
