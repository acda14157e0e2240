//! The streams that calls return.

use std::pin::Pin;

use arrow_flight::FlightData;
use futures::Stream;
use tonic::Status;

/// Stream of answers.
pub(crate) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
/// Stream of Arrow data.
pub(crate) type Messages = Answers<FlightData>;
