//! The Fivefold gateway: radios on one side, the cloud on the other, and no key of E3 between.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

pub mod pcap;
