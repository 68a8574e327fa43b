//! What two parties of a Fivefold deployment must agree on, byte for byte. No I/O, no heap, no clock, no randomness.
//!
//! The five levels each have a room: [`e1_link`], [`e2_gateway`], [`e3_cloud`], [`e4_channel`], [`e5_renewal`].
//! Byte layouts without keys are in [`wire`]. Everything refused is a [`error::Rejected`] with its code of
//! docs/protocol.md 14.
#![no_std]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

pub mod counter;
pub mod e1_link;
pub mod e2_gateway;
pub mod e3_cloud;
pub mod e4_channel;
pub mod e5_renewal;
pub mod error;
pub mod id;
pub mod key;
pub mod level;
pub mod metric;
pub mod oscore;
pub mod profile;
pub mod proof;
pub mod reading;
pub mod suite;
pub mod time;
pub mod why;
pub mod window;
pub mod wire;
