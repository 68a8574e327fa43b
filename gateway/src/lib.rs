//! The Fivefold gateway: radios on one side, the cloud on the other, and no key of E3 between.
//!
//! [`gateway::Gateway`] is the engine: no socket, clock, disk or thread. Around it lies the rim: [`spool`] makes durable
//! what was accepted, [`pcap`] writes down what was heard.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

pub mod gateway;
pub mod pcap;
pub mod spool;
