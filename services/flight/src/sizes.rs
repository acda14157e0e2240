//! Limits of a message's size, by the role of its sender. A whole message is in memory before any of its content is checked.

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

/// Largest message of a call that is not a writer's put, in bytes. It is gRPC's default and far more than a query with its parameters.
const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Largest message of a writer's put, in bytes. Third-party clients do not split their batches.
const PUT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Largest message that the server sends, in bytes: room for a wide row of a query result.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Path of DoPut calls.
const PUT_PATH: &str = "/arrow.flight.protocol.FlightService/DoPut";

/// Flight service with two limits for the size of a message.
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
