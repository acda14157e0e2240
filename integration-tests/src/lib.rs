//! Support of the integration tests: the servers that `script/test` has started, and real `candleflight` processes that use them.
//!
//! Each test creates a [`pipeline::Pipeline`] on the shared servers: a topic, a lake and a database that no other test uses. The test starts, kills
//! and restarts the processes of its services.

pub mod bronze;
pub mod check;
pub mod environment;
pub mod input;
pub mod pipeline;
pub mod process;
pub mod server;
pub mod wait;
