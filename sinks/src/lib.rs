//! Readings go out: what is sent of one ([`Outbound`]), in which order and when it is tried again ([`engine`]), and the sinks
//! that take it ([`Sink`]). The cloud reads its store, asks the engine what is next, and notes how far a sink is.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

pub mod broker;
mod chirpstack;
pub mod engine;
mod influx;
mod mqtt;
mod nats;
mod outbound;
mod parquet;
pub mod post;
mod settings;
mod sink;
mod webhook;

#[cfg(test)]
extern crate self as fivefold_sinks;
#[cfg(test)]
#[path = "../tests/common/mod.rs"]
mod example;

pub use outbound::{About, Outbound, Quantity, Scalar};
pub use settings::{Settings, Wrong, check};
pub use sink::{Answer, Most, PATIENCE, Sending, Sink, Verdict};
