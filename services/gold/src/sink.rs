//! The sinks. Two are durable, each at its own position. The third sends committed rows to followers.

pub(crate) mod flight;
pub mod lake;
pub mod postgres;
