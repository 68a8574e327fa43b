//! The Fivefold gateway: radios on one side, the cloud on the other, and no key of E3 between.
//!
//! [`gateway::Gateway`] is the engine: no socket, clock, disk or thread. Around it lies the rim: [`spool`] makes durable
//! what was accepted, [`radio`] hears and speaks, [`classic`] hears nodes of before, [`uplink`] is E4, [`credentials`] what it shows there, [`join`] and
//! [`certificate`] get that from the operator, [`config`] reads what the operator wrote, [`metrics`] shows counters, [`selfcheck`]
//! audits it, [`pcap`] writes down what was heard, and [`lorawan`] reads what LoRaWAN network servers say, and [`daemon`] runs it all.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

pub mod certificate;
pub mod classic;
pub mod config;
pub mod credentials;
pub mod daemon;
pub mod gateway;
pub mod join;
pub mod lorawan;
pub mod metrics;
pub mod pcap;
pub mod radio;
pub mod selfcheck;
pub mod spool;
pub mod uplink;
pub mod xbee;
