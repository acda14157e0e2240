//! What integration tests stand on: the servers that `script/test` has started, and real `candleflight` processes on them.
//!
//! Each test makes a [`Pipeline`]: a topic, a lake and a database that nobody else uses, on the shared servers. Its services are
//! processes that the test starts, kills and starts again.

pub mod bronze;
pub mod check;
pub mod environment;
pub mod input;
pub mod pipeline;
pub mod process;
pub mod server;
pub mod wait;
