//! The pipeline from a user's view: real `candleflight` processes on real Kafka, MinIO and PostgreSQL. `script/test` runs these tests.

mod access;
mod bad_input;
mod certificates;
mod clients;
mod contract;
mod crash;
mod dead_letters;
mod flight_sql;
mod identity;
mod inlets;
mod interop;
mod leaders;
mod limits;
mod live;
mod outages;
mod partitions;
mod real_input;
mod resume;
mod secured;
mod snapshots;
mod status;
mod verify;
